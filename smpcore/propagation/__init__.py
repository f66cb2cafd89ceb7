"""Predicted SMP: block by block, then through whole networks. Nothing here measures."""

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

__all__ = [
    "MaxPoolSmp", "linear_smp", "max_pool_smp", "max_pool_smp_estimate", "random_linear_smp",
    "shared_linear_smp", "two_slope_smp", "two_slope_smp_std",
]
