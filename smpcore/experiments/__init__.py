"""Runs and benchmarks of the notebooks: their records, read into one table, and the methods they compare with."""

from smpcore.experiments.benchmarks import (
    forward_pass,
    in_turns,
    peak_bytes,
    rms_error,
    sampled_slopes,
    samples_needed,
    scipy_composition,
)
from smpcore.experiments.results import Run, start
from smpcore.experiments.run_table import load
from smpcore.experiments.sequential_reference import LineKinks, transform_line

__all__ = ["LineKinks", "Run", "forward_pass", "in_turns", "load", "peak_bytes", "rms_error", "sampled_slopes",
           "samples_needed", "scipy_composition", "start", "transform_line"]
