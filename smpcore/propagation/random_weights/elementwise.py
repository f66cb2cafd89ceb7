"""Stages of elementwise units: two slopes, two thresholds, smooth."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from smpcore.propagation.random_weights.linear import TWO_SLOPE, Stage, stage
from smpcore.propagation.random_weights.sampling import drawn
from smpcore.propagation.random_weights.second_moments import Field, both_above, crossing_rate, two_slope_field

__all__ = ["gated", "slopes_of"]


def gated(field: Field, gate: Tensor, gain: Tensor) -> Tensor:
    """Squared gains before an elementwise unit whose slopes ``(R, P, M, N)`` were drawn."""
    if gain.dim() == 4:
        return gain * (gate.mT @ gate / gate.shape[2])
    return gain * (gate**2).mean(2)


def slopes_of(step) -> tuple[float, float, float]:
    """E[q], E[(1 − q)²] and E|1 − q| of a two-slope unit, over channels."""
    below = torch.zeros(1, dtype=torch.float64)
    if step.op == "leaky relu":
        below = below + float(step.settings.get("negative_slope", 0.01))
    elif step.op == "prelu":
        below = step.module.weight.detach().double()
    return float(below.mean()), float(((1 - below) ** 2).mean()), float((1 - below).abs().mean())


def _leaky(q: float):
    return lambda values, slopes: (torch.where(values > 0, values, q * values),
                                   torch.where(values > 0, slopes, q * slopes))


@stage(*TWO_SLOPE)
def _two_slope(step, fields, run) -> Stage:
    """Rice's formula at 0; behind it the arc-cosine moments, or draws where the field is not Gaussian."""
    field = fields[0]
    mean_below, square_step, jump = slopes_of(step)
    leaky = _leaky(mean_below)
    if field.gaussian:
        def draw():
            return leaky(*field.draw())

        if run.pool_behind():
            # Only the leader's crossings are seen, and only its slope counts: the pooling does both, from draws.
            return Stage(replace(field, gaussian=False, draw=draw, before=field), lambda gain: [gain])
        behind = replace(two_slope_field(field, mean_below, square_step), draw=draw)
        gate = mean_below + square_step * both_above(field)
        rates = ((run.at, run.at, jump * crossing_rate(field)),)
        return Stage(behind, lambda gain: [gain * (gate if gain.dim() == 4 else _own(gate))], rates)
    values, slopes = _draws(step, field)
    if run.pool_before():
        rates = ()
    elif field.core is not None:
        rates = ((run.at, run.at, jump * crossing_rate(field.core, 0.0, field.rest())),)
    elif bool((values >= 0).all()):
        rates = ()
    else:
        raise ValueError(f"{step.name} stands behind a map that is neither Gaussian nor positive: a linear or "
                         "convolutional layer, or batch norm, has to come before it")
    gate = torch.where(values > 0, 1.0, mean_below)
    return Stage(drawn(field, *leaky(values, slopes)), lambda gain: [gated(field, gate, gain)], rates)


def _own(gate: Tensor) -> Tensor:
    return torch.diagonal(gate, dim1=-2, dim2=-1) if gate.dim() == 4 else gate


def _draws(step, field: Field):
    if field.draw is None:
        raise ValueError(f"{step.name} acts on the inputs themselves: a linear or convolutional layer has to come "
                         "before it")
    return field.draw()


@stage("hardtanh")
def _hardtanh(step, fields, run) -> Stage:
    """Two thresholds: Rice's formula at each."""
    field = fields[0]
    low, high = (float(step.settings.get(name, default)) for name, default in (("min_val", -1.0), ("max_val", 1.0)))
    values, slopes = _draws(step, field)
    if field.gaussian:
        rate = crossing_rate(field, low) + crossing_rate(field, high)
    elif field.core is not None:
        rate = crossing_rate(field.core, low, field.rest()) + crossing_rate(field.core, high, field.rest())
    else:
        raise ValueError(f"{step.name} stands behind a map that is not Gaussian: a linear or convolutional layer, or "
                         "batch norm, has to come before it")
    gate = ((values > low) & (values < high)).to(values)
    return Stage(drawn(field, values.clamp(low, high), gate * slopes), lambda gain: [gated(field, gate, gain)],
                 ((run.at, run.at, rate),))


_SMOOTH = {"tanh": lambda step: torch.tanh, "sigmoid": lambda step: torch.sigmoid,
           "silu": lambda step: nn.functional.silu,
           "gelu": lambda step: nn.GELU(step.settings.get("approximate", "none")),
           "softplus": lambda step: nn.Softplus(step.settings.get("beta", 1), step.settings.get("threshold", 20))}


@stage(*_SMOOTH)
def _smooth(step, fields, run) -> Stage:
    """No kinks; moments and mean squared slopes from draws."""
    field = fields[0]
    values, slopes = _draws(step, field)
    with torch.enable_grad():
        inside = values.detach().requires_grad_()
        outside = _SMOOTH[step.op](step)(inside)
        (gate,) = torch.autograd.grad(outside.sum(), inside)
    return Stage(drawn(field, outside.detach(), gate * slopes), lambda gain: [gated(field, gate, gain)])
