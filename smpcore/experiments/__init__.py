"""Runs and benchmarks of the notebooks: their records, the methods they compare with, the networks they train."""

from smpcore.experiments.benchmarks import (
    forward_pass,
    in_turns,
    peak_bytes,
    rms_error,
    sampled_slopes,
    samples_needed,
    scipy_composition,
)
from smpcore.experiments.regressors import Recipe, Trained, regressor, train
from smpcore.experiments.results import Run, start
from smpcore.experiments.run_table import load
from smpcore.experiments.sequential_reference import LineKinks, transform_line

__all__ = [
    "LineKinks", "Recipe", "Run", "Trained", "forward_pass", "in_turns", "load", "peak_bytes", "regressor", "rms_error",
    "sampled_slopes", "samples_needed", "scipy_composition", "start", "train", "transform_line",
]
