"""Random signals whose kinks and slopes are known: the ground truth of every measurement and prediction."""

from smpcore.signals.processes import (
    HingeSignals,
    Signals,
    autocovariance,
    gaussian_process,
    hinge_signals,
    hinges,
    slope_variance,
)
from smpcore.signals.random_pictures import PictureSignals, moving_pictures, picture_covariances

__all__ = [
    "HingeSignals", "PictureSignals", "Signals", "autocovariance", "gaussian_process", "hinge_signals", "hinges",
    "moving_pictures", "picture_covariances", "slope_variance",
]
