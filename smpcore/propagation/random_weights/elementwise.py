"""The stage of an elementwise unit: Rice's formula at its hinges, moments in closed form or from draws."""

from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.unit_rule import between_hinges, levels, refuse_jumps, two_slopes
from smpcore.propagation.random_weights.sampling import as_many, drawn, matched, moments_of, once, paired, pulled
from smpcore.propagation.random_weights.second_moments import (
    Field,
    crossing_rate,
    two_slope_field,
)
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["through", "unit"]

# Positions whose quadrature is done at once.
_AT_ONCE = 1 << 13


def through(step, count: int, values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A unit's values, slopes and derivatives for draws ``(R, P, M, ...)``, which take ``count`` channels' settings in
    turn."""
    shape, channels = values.shape, count if step.channels > 1 else 1
    rows = torch.arange(-(-shape[2] // channels) * channels, device=values.device) % shape[2]
    x = values.flatten(3)[:, :, rows].reshape(-1, channels, shape[3:].numel())
    seen = step.describe(x)
    y, gate = (part.detach().reshape(*shape[:2], -1, *shape[3:])[:, :, :shape[2]]
               for part in (seen.output(x), seen.derivative(x)))
    return y, gate * slopes, gate


def _by_quadrature(step, field: Field) -> tuple[list[Tensor], Tensor]:
    """Moments behind a unit of a Gaussian field of which only p = q is carried, and the mean square of its derivative.

    Given a = u the slope is Gaussian of mean X u/K and variance S − X²/K.
    """
    def some(value, slope, cross):
        x, share = between_hinges(step.seen, torch.zeros_like(value), value)
        seen = step.describe(x.flatten(0, 2))
        y, gate = (part.detach().reshape(x.shape) for part in (seen.output(seen.input), seen.derivative(seen.input)))
        drift = cross / torch.where(value > 0, value, 1.0)
        left = slope - drift * cross
        return torch.stack([(part * share).sum((0, 1)).mean(-1) for part in (
            y**2, gate**2 * (left + (drift * x) ** 2), y * gate * drift * x, gate**2)])

    # Channels with settings of their own stand beside one another.
    flat = [moment.flatten()[:, None].expand(-1, step.channels).split(_AT_ONCE) for moment in field.moments()]
    *moments, passed = torch.cat([some(*parts) for parts in zip(*flat, strict=True)], 1).reshape(4, *field.value.shape)
    return moments, passed


def unit(step, fields, run) -> Stage:
    """Kinks at every hinge; behind two slopes the arc-cosine moments, or draws where the field is not Gaussian."""
    field, seen, slopes = fields[0], step.seen, two_slopes(step.seen)
    refuse_jumps(step.seen, step.name)
    if step.channels not in (1, field.channels):
        raise ValueError(f"{step.name} has settings for {step.channels} channels, and gets {field.channels}")

    def rates(gaussian, rest=None):
        rows = gaussian.given or gaussian
        made = sum(step.to(rows.value).view(2, 1, 1, 1) * crossing_rate(rows, at, rest)
                   for at, step in levels(seen).items())
        if gaussian.given is not None and seen.hinges:
            made = made.unflatten(2, (gaussian.value.shape[1], -1)).mean(3)
        return ((run.at, run.at, made),) if step.seen.hinges else ()

    passing = once(lambda: through(step, field.channels, *field.draw()))
    draw = once(lambda: passing()[:2])
    derivative = passing()[2] if run.joint else None
    # Where a sum reads this unit, what is behind the sum depends on whether this unit is on.
    meets = run.joint and any(run.steps[each].op == "sum" for each in run.users[run.at])

    def pull(passed):
        def of_draws(draws):
            return as_many(draws, derivative.shape[2]) * derivative

        if meets:
            return lambda gain: [matched(of_draws(gain), torch.as_tensor(passed), derivative**2)]
        return lambda gain: pulled(gain, lambda squares: squares * passed, of_draws)

    if field.gaussian and slopes is not None:
        if run.pool_behind():
            # Only the leader's crossings are seen, and only its slope counts: the pooling does both, from draws.
            return Stage(replace(field, gaussian=False, draw=draw, before=field), lambda gain: [gain])
        behind = replace(two_slope_field(field, slopes.product, slopes.square_step), draw=draw)
        still = derivative == 0 if meets and not slopes.below else None
        return Stage(behind, pull(slopes.product + slopes.square_step / 2), rates(field), still)
    if not field.roots:
        raise ValueError(f"{step.name} acts on the inputs themselves: a linear or convolutional layer has to come "
                         "before it")
    if field.gaussian and not field.pairs and not run.joint:
        moments, passed = _by_quadrature(step, field)
        behind = Field(*moments, field.channels, field.sides, field.flat, draw=draw, roots=field.roots)
        return Stage(behind, pull(passed), rates(field))
    values, (y, rising, gate) = field.draw()[0], passing()
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
    passed = (gate**2).mean(2)
    if field.core is not None and not run.joint:
        # What is added passes a gain back only where it is not 0, as behind a ReLU; there this unit is on more often.
        alive = (paired(field.core.draw(), field.rest())[1][0] != 0).to(gate)
        squares = (gate**2).expand(alive.shape[:2] + gate.shape[2:])
        apart = squares.mean(2).clamp(min=1e-12)
        # Where a unit of the other map has its kink it is 0, and the Gaussian alone decides, evenly.
        even = torch.as_tensor(0.0 if slopes is None else (slopes.above**2 + slopes.below**2) / 2).to(gate)
        run.on_with_rest[step.inputs[0]] = ((squares * alive).mean(2) / alive.mean(2).clamp(min=1e-12) / apart,
                                            torch.ones_like(apart) if slopes is None else even / apart)
    behind = drawn(field, y, rising)
    if field.gaussian:
        # As likely as its mirror image: with both, squares below and above 0 sum to what is known.
        *mirrored, other = through(step, field.channels, *(-part for part in field.draw()))
        both = zip(behind.moments(), moments_of(*mirrored, field.pairs), strict=True)
        moments = [(one + two) / 2 for one, two in both]
        behind, passed = replace(behind, value=moments[0], slope=moments[1], cross=moments[2]), (
            passed + (other**2).mean(2)) / 2
    still = derivative == 0 if meets and slopes is not None and not slopes.below else None
    return Stage(behind, pull(passed), made, still)
