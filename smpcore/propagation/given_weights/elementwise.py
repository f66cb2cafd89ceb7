"""Rules of elementwise units: their own kinks, and the gates that they are to the kinks of others."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from smpcore.propagation.closed_forms.block_rules import two_slope_smp
from smpcore.propagation.closed_forms.orthant import sobol
from smpcore.propagation.given_weights.kink_sources import Kinks, fresh, matched
from smpcore.propagation.given_weights.propagate import propagate
from smpcore.propagation.given_weights.statistics import Statistics

__all__ = ["described", "drawn"]

# Sobol points (in each of eight scrambles) for moments behind what has no closed form, and the most signals.
_POINTS = 2048
_MOST = 256
# 1 − ρ² below which two signals are one, but for their size.
_SAME = 1e-10


@propagate.register(nn.ReLU)
def _relu(layer, statistics: Statistics) -> Statistics:
    """New kinks where a signal crosses 0, old ones where the unit is on (`rules.two_slope_smp`)."""
    return _two_slope(layer, statistics, torch.zeros(1, dtype=torch.float64))


@propagate.register(nn.LeakyReLU)
def _leaky_relu(layer, statistics: Statistics) -> Statistics:
    """As ReLU's, with the slope below 0."""
    return _two_slope(layer, statistics, torch.tensor([layer.negative_slope], dtype=torch.float64))


@propagate.register(nn.PReLU)
def _prelu(layer, statistics: Statistics) -> Statistics:
    """As leaky ReLU's, each channel with its own slope."""
    below = layer.weight.detach().double().cpu()
    if len(below) not in (1, statistics.shape[0]):
        raise ValueError(f"PReLU has {len(below)} slopes, for {statistics.shape[0]} channels")
    return _two_slope(layer, statistics, below.expand(statistics.shape[0]).repeat_interleave(
        len(statistics.mean) // statistics.shape[0]))


def _two_slope(layer, statistics: Statistics, below: Tensor) -> Statistics:
    """Rice's formula for the kinks; moments of max(x, 0) and of its slopes over Sobol points."""
    statistics.require(type(layer).__name__, "gaussian", "stationary")
    below = below.to(statistics.mean).expand(len(statistics.mean))
    moves = (statistics.var > 0) & (statistics.slope_var > 0)
    on = torch.where(moves, torch.special.ndtr(statistics.mean / torch.where(moves, statistics.var, 1.0).sqrt()),
                     (statistics.mean > 0).to(below))
    made = torch.zeros_like(below)
    made[moves] = two_slope_smp(statistics.mean[moves], statistics.var[moves], statistics.slope_var[moves],
                                statistics.duration, slopes=(torch.ones_like(below)[moves], below[moves]))
    return _through(statistics, fresh(made, _alike(statistics, 1 - below)), on + below.abs() * (1 - on),
                    lambda x: torch.where(x > 0, x, below * x), lambda x: torch.where(x > 0, 1.0, below))


def _alike(statistics: Statistics, step: Tensor) -> Tensor:
    """``(n, n)``: ±1 where two signals are multiples of each other, and so cross 0 together; else 0."""
    std = torch.where(statistics.var > 0, statistics.var, 1.0).sqrt()
    correlation = statistics.value_cov / (std[:, None] * std)
    level = statistics.mean / std
    together = (correlation**2 > 1 - _SAME) & ((level[:, None] - correlation.sign() * level).abs() < _SAME**0.5)
    together = together | torch.eye(len(std), dtype=torch.bool, device=std.device)
    return torch.where(together, (step[:, None] * step).sign(), 0.0)


@propagate.register(nn.Hardtanh)
def _hardtanh(layer, statistics: Statistics) -> Statistics:
    """Two thresholds, Rice's formula at each; old kinks pass in between. ReLU6 is one of these."""
    statistics.require(type(layer).__name__, "gaussian", "stationary")
    low, high = layer.min_val, layer.max_val
    moves = (statistics.var > 0) & (statistics.slope_var > 0)
    std = torch.where(moves, statistics.var, 1.0).sqrt()
    edges = [(edge - statistics.mean) / std for edge in (low, high)]
    inside = torch.special.ndtr(edges[1]) - torch.special.ndtr(edges[0])
    still = ((statistics.mean > low) & (statistics.mean < high)).to(std)
    made = torch.zeros_like(std)
    for edge in (low, high):
        made[moves] += two_slope_smp(statistics.mean[moves] - edge, statistics.var[moves], statistics.slope_var[moves],
                                     statistics.duration)
    return _through(statistics, fresh(made), torch.where(moves, inside, still), lambda x: x.clamp(low, high),
                    lambda x: ((x > low) & (x < high)).to(x))


@propagate.register(nn.Tanh)
@propagate.register(nn.Sigmoid)
@propagate.register(nn.GELU)
@propagate.register(nn.SiLU)
@propagate.register(nn.Softplus)
def _smooth(layer, statistics: Statistics) -> Statistics:
    """No kinks of its own; old ones scaled by E|g'(x)|, its mean over a Gaussian value."""
    statistics.require(type(layer).__name__, "gaussian", "stationary")

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            return torch.autograd.grad(layer(inside).sum(), inside)[0]

    return _through(statistics, None, slope(drawn(statistics)[0]).abs().mean(0), lambda x: layer(x).detach(), slope)


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
    power, axes = torch.linalg.eigh(joint)
    root = axes * power.clamp(min=0).sqrt()
    points = sobol(2 * n, _POINTS)
    # In an order of its own at every unit on the way, so that the gates of one are not those of the next.
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(statistics.depth))
    white = math.sqrt(2) * torch.erfinv(2 * points[order].to(joint) - 1)
    both = torch.stack([white, -white], 1).flatten(0, 1) @ root.T
    return statistics.mean + both[:, :n], both[:, n:]


def _through(statistics: Statistics, made: Kinks | None, passed: Tensor, unit, slope) -> Statistics:
    """Behind an elementwise unit with slope ``slope(x)``, whose mean magnitude ``passed`` is known better."""
    values, slopes = drawn(statistics)
    gate = slope(values)
    old = matched(tuple(each.gated(gate) for each in statistics.kinks), passed * statistics.smp)
    return described(statistics, old, made, unit(values), gate * slopes, statistics.shape)


def described(statistics: Statistics, old: tuple[Kinks, ...], made: Kinks | None, values: Tensor, slopes: Tensor,
              shape) -> Statistics:
    """Statistics of draws ``(M, m)``, with the kinks passed on and the unit's own."""
    mean, count = values.mean(0), len(values)
    centred = values - mean
    kinks = old if made is None or not len(made.rate) else (*old, made)
    return replace(statistics, mean=mean, value_cov=centred.T @ centred / count, slope_cov=slopes.T @ slopes / count,
                   cross_cov=slopes.T @ centred / count, kinks=kinks, shape=tuple(shape), gaussian=False,
                   depth=statistics.depth + 1)
