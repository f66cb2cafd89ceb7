"""SMP and kinks of sampled signals, and beside them what else is asked of a sampled curve.

- `smp`, `find_kinks`: the sum of the magnitudes of the slope's jumps, and each jump, from values alone.
- `jump_share`: how much of a curve is jumps of its value, where SMP is not defined (`ValueJumpWarning`).
- `slope_variation`, `acceleration_error`, `mean_jerk`, `log_dimensionless_jerk`: what a video at a frame rate shows.
"""

from smpcore.metric.estimator import Kinks, find_kinks, smp
from smpcore.metric.jitter import acceleration_error, log_dimensionless_jerk, mean_jerk, slope_variation
from smpcore.metric.value_jumps import ValueJumpWarning, jump_share

__all__ = [
    "Kinks", "ValueJumpWarning", "acceleration_error", "find_kinks", "jump_share", "log_dimensionless_jerk",
    "mean_jerk", "slope_variation", "smp",
]
