"""Predicted SMP: block by block, then through whole networks. Nothing here measures."""

from smpcore.propagation.closed_forms import (
    MaxPoolSmp,
    Spread,
    convex_unit_smp,
    linear_smp,
    max_pool_smp,
    max_pool_smp_estimate,
    maximum_smp,
    random_linear_smp,
    shared_linear_smp,
    simulated_spread,
    two_slope_smp,
    two_slope_smp_std,
    two_slope_spread,
)
from smpcore.propagation.given_weights import Residual, Statistics, propagate
from smpcore.propagation.predict_network import LayerPrediction, NetworkPrediction, predict_network

__all__ = [
    "LayerPrediction", "MaxPoolSmp", "NetworkPrediction", "Residual", "Spread", "Statistics", "convex_unit_smp",
    "linear_smp", "max_pool_smp", "max_pool_smp_estimate", "maximum_smp", "predict_network", "propagate",
    "random_linear_smp", "shared_linear_smp", "simulated_spread", "two_slope_smp", "two_slope_smp_std",
    "two_slope_spread",
]
