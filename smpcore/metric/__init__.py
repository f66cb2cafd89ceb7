"""SMP and kinks of sampled signals, jumps of their value, and how jittery they are at a frame rate."""

from smpcore.metric.estimator import Kinks, find_kinks, smp
from smpcore.metric.jitter import acceleration_error, log_dimensionless_jerk, mean_jerk, slope_variation
from smpcore.metric.value_jumps import ValueJumpWarning, jump_share

__all__ = [
    "Kinks", "ValueJumpWarning", "acceleration_error", "find_kinks", "jump_share", "log_dimensionless_jerk",
    "mean_jerk", "slope_variation", "smp",
]
