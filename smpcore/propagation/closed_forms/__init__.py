"""One block at a time: predicted SMP of linear layers, units and max pooling, in closed form or by quadrature."""

from smpcore.propagation.closed_forms.block_rules import (
    linear_smp,
    max_pool_smp,
    max_pool_smp_estimate,
    random_linear_smp,
    shared_linear_smp,
    two_slope_smp,
)
from smpcore.propagation.closed_forms.crossing_variance import two_slope_smp_std
from smpcore.propagation.closed_forms.gaussian_max import MaxPoolSmp
from smpcore.propagation.closed_forms.spread import (
    Spread,
    convex_unit_smp,
    maximum_smp,
    simulated_spread,
    two_slope_spread,
)

__all__ = [
    "MaxPoolSmp", "Spread", "convex_unit_smp", "linear_smp", "max_pool_smp", "max_pool_smp_estimate",
    "maximum_smp", "random_linear_smp", "shared_linear_smp", "simulated_spread", "two_slope_smp",
    "two_slope_smp_std", "two_slope_spread",
]
