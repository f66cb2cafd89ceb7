"""The stage of an elementwise unit: Rice's formula at its hinges, moments in closed form or from draws."""

from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.unit_rule import levels, refuse_jumps, two_slopes
from smpcore.propagation.random_weights.sampling import drawn
from smpcore.propagation.random_weights.second_moments import Field, both_above, crossing_rate, two_slope_field
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["gated", "through", "unit"]


def gated(gate: Tensor, gain: Tensor) -> Tensor:
    """Squared gains before an elementwise unit whose derivatives ``(R, P, M, N)`` were drawn."""
    if gain.dim() == 4:
        return gain * (gate.mT @ gate / gate.shape[2])
    return gain * (gate**2).mean(2)


def through(step, field: Field, values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A unit's values, slopes and derivatives for draws ``(R, P, M, N)``, which take the channels' settings in turn."""
    shape, channels = values.shape, field.channels if step.channels > 1 else 1
    rows = torch.arange(-(-shape[2] // channels) * channels, device=values.device) % shape[2]
    x = values[:, :, rows].reshape(-1, channels, *(() if field.flat else field.sides))
    seen = step.describe(x)
    y, gate = (part.detach().reshape(*shape[:2], -1, shape[3])[:, :, :shape[2]]
               for part in (seen.output(x), seen.derivative(x)))
    return y, gate * slopes, gate


def unit(step, fields, run) -> Stage:
    """Kinks at every hinge; behind two slopes the arc-cosine moments, or draws where the field is not Gaussian."""
    field, seen, slopes = fields[0], step.seen, two_slopes(step.seen)
    refuse_jumps(step.seen, step.name)
    if step.channels not in (1, field.channels):
        raise ValueError(f"{step.name} has settings for {step.channels} channels, and gets {field.channels}")

    def rates(gaussian, rest=None):
        made = sum(step.to(gaussian.value).view(2, 1, 1, 1) * crossing_rate(gaussian, at, rest)
                   for at, step in levels(seen).items())
        return ((run.at, run.at, made),) if step.seen.hinges else ()

    if field.gaussian and slopes is not None:
        def draw():
            return through(step, field, *field.draw())[:2]

        if run.pool_behind():
            # Only the leader's crossings are seen, and only its slope counts: the pooling does both, from draws.
            return Stage(replace(field, gaussian=False, draw=draw, before=field), lambda gain: [gain])
        behind = replace(two_slope_field(field, slopes.product, slopes.square_step), draw=draw)
        gate = slopes.product + slopes.square_step * both_above(field)
        return Stage(behind, lambda gain: [gain * (gate if gain.dim() == 4 else _own(gate))], rates(field))
    if field.draw is None:
        raise ValueError(f"{step.name} acts on the inputs themselves: a linear or convolutional layer has to come "
                         "before it")
    values, rising = field.draw()
    y, rising, gate = through(step, field, values, rising)
    if field.gaussian:
        made = rates(field)
    elif slopes is not None and run.pool_before():
        made = ()
    elif field.core is not None:
        made = rates(field.core, field.rest())
    elif not step.seen.hinges or (slopes is not None and bool((values >= 0).all())):
        made = ()
    else:
        what = "that is neither Gaussian nor positive" if slopes is not None else "that is not Gaussian"
        raise ValueError(f"{step.name} stands behind a map {what}: a linear or convolutional layer, or batch norm, has "
                         "to come before it")
    return Stage(drawn(field, y, rising), lambda gain: [gated(gate, gain)], made)


def _own(gate: Tensor) -> Tensor:
    return torch.diagonal(gate, dim1=-2, dim2=-1) if gate.dim() == 4 else gate
