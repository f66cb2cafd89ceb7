"""The rule of elementwise units: their own kinks at each hinge, and the gates that they are to the kinks of others."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from smpcore.inspection.elementwise_modules import elementwise
from smpcore.propagation.closed_forms.orthant import sobol, symmetric_root
from smpcore.propagation.closed_forms.unit_rule import hinge_rates, mean_derivative, refuse_jumps
from smpcore.propagation.given_weights.kink_sources import Kinks, fresh, matched
from smpcore.propagation.given_weights.statistics import Statistics

__all__ = ["described", "drawn", "unit"]

# Sobol points (in each of eight scrambles) for moments behind what has no closed form, and the most signals.
_POINTS = 2048
_MOST = 256
# 1 − ρ² below which two signals are one, but for their size.
_SAME = 1e-10


def unit(layer, statistics: Statistics) -> Statistics | None:
    """Kinks by Rice's formula at each hinge (`closed_forms.unit_rule`), moments over Sobol points.

    None for a layer that is not elementwise.
    """
    found, name = elementwise(layer), type(layer).__name__
    if found is None:
        return None
    statistics.require(name, "gaussian", "stationary")
    values, slopes = drawn(statistics)
    maps = values.reshape(-1, *statistics.shape)
    seen = found.describe(maps)
    refuse_jumps(seen, name)
    y, gate = (part.detach().reshape(values.shape) for part in (seen.output(maps), seen.derivative(maps)))
    mean, var, slope_var = (part.reshape(statistics.shape) for part in
                            (statistics.mean, statistics.var, statistics.slope_var))
    made = tuple(fresh(statistics.duration * rate.flatten(), _alike(statistics, at.flatten(), step.flatten()))
                 for rate, _, at, step in hinge_rates(seen, mean, var, slope_var))
    passed = mean_derivative(seen, mean, var).flatten()
    old = matched(tuple(each.gated(gate) for each in statistics.kinks), passed * statistics.smp)
    return described(statistics, old, made, y, gate * slopes, statistics.shape)


def _alike(statistics: Statistics, at: Tensor, step: Tensor) -> Tensor:
    """``(n, n)``: ±1 where two signals are multiples of each other, and so cross their thresholds together; else 0."""
    std = torch.where(statistics.var > 0, statistics.var, 1.0).sqrt()
    correlation = statistics.value_cov / (std[:, None] * std)
    level = (statistics.mean - at) / std
    together = (correlation**2 > 1 - _SAME) & ((level[:, None] - correlation.sign() * level).abs() < _SAME**0.5)
    together = together | torch.eye(len(std), dtype=torch.bool, device=std.device)
    return torch.where(together, (step[:, None] * step).sign(), 0.0)


# Moments and gates behind what is not linear -----------------------------------------------------------------


def drawn(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Gaussian values and slopes with these statistics, ``(M, n)`` each, on Sobol points; each second is the mirror
    image of the one before."""
    n = len(statistics.mean)
    if n > _MOST:
        raise ValueError(f"{n} signals: beyond {_MOST} their joint moments take too long here; predict_network goes "
                         "through whole networks")
    joint = torch.cat([torch.cat([statistics.value_cov, statistics.cross_cov.T], 1),
                       torch.cat([statistics.cross_cov, statistics.slope_cov], 1)])
    root = symmetric_root(joint)
    points = sobol(2 * n, _POINTS)
    # Shuffle per unit on the way, so that gates of successive units are independent.
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(statistics.depth))
    white = math.sqrt(2) * torch.erfinv(2 * points[order].to(joint) - 1)
    both = torch.stack([white, -white], 1).flatten(0, 1) @ root.T
    return statistics.mean + both[:, :n], both[:, n:]


def described(statistics: Statistics, old: tuple[Kinks, ...], made: tuple[Kinks, ...], values: Tensor, slopes: Tensor,
              shape) -> Statistics:
    """Statistics of draws ``(M, m)``, with the kinks passed on and the unit's own."""
    mean, count = values.mean(0), len(values)
    centred = values - mean
    kinks = (*old, *(part for part in made if len(part.rate)))
    return replace(statistics, mean=mean, value_cov=centred.T @ centred / count, slope_cov=slopes.T @ slopes / count,
                   cross_cov=slopes.T @ centred / count, kinks=kinks, shape=tuple(shape), gaussian=False,
                   depth=statistics.depth + 1)
