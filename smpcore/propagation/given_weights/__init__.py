"""Layer by layer with the weights as they are: statistics of signals go in, statistics come out."""

from smpcore.propagation.given_weights.propagate import Residual, propagate
from smpcore.propagation.given_weights.statistics import Statistics

__all__ = ["Residual", "Statistics", "propagate"]
