"""Predicted SMP: block by block, then through whole networks. Nothing here measures."""

from smpcore.propagation import _layer_pools, _layer_units  # noqa: F401
from smpcore.propagation.layers import Residual, propagate
from smpcore.propagation.networks import LayerPrediction, NetworkPrediction, predict_network
from smpcore.propagation.rules import (
    MaxPoolSmp,
    linear_smp,
    max_pool_smp,
    max_pool_smp_estimate,
    random_linear_smp,
    shared_linear_smp,
    two_slope_smp,
    two_slope_smp_std,
)
from smpcore.propagation.spread import (
    Spread,
    convex_unit_smp,
    maximum_smp,
    simulated_spread,
    two_slope_spread,
)
from smpcore.propagation.statistics import Statistics

__all__ = [
    "LayerPrediction", "MaxPoolSmp", "NetworkPrediction", "Residual", "Spread", "Statistics", "convex_unit_smp",
    "linear_smp", "max_pool_smp", "max_pool_smp_estimate", "maximum_smp", "predict_network", "propagate",
    "random_linear_smp", "shared_linear_smp", "simulated_spread", "two_slope_smp", "two_slope_smp_std",
    "two_slope_spread",
]
