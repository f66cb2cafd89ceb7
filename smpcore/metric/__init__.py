"""SMP and kinks of sampled signals."""

from smpcore.metric.estimator import Kinks, find_kinks, smp

__all__ = ["Kinks", "find_kinks", "smp"]
