"""The cure: kinked units of a trained network made smooth, and penalties that keep one smooth in training."""

from smpcore.smoothing.penalties import curvature_penalty, expected_smp
from smpcore.smoothing.relax import Relaxed, relax
from smpcore.smoothing.soft_units import LogSumExpPool1d, LogSumExpPool2d, LogSumExpPool3d

__all__ = ["LogSumExpPool1d", "LogSumExpPool2d", "LogSumExpPool3d", "Relaxed", "curvature_penalty", "expected_smp",
           "relax"]
