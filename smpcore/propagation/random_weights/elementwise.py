"""The stage of an elementwise unit: Rice's formula at its hinges, moments in closed form or from draws."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.unit_rule import between_hinges, levels, refuse_jumps, two_slopes
from smpcore.propagation.random_weights.sampling import as_many, drawn, matched, moments_of, once, paired, pulled
from smpcore.propagation.random_weights.second_moments import (
    Field,
    crossing_rate,
    diagonal,
    two_slope_field,
)
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["by_quadrature", "through", "unit"]

# Positions whose quadrature is done at once.
_AT_ONCE = 1 << 13
# Hermite polynomials whose correlations between positions are summed.
_ORDERS = 48


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


def by_quadrature(step, field: Field) -> tuple[list[Tensor], Tensor]:
    """Moments behind a unit of a Gaussian field, and the mean square ``(R, P, N)`` of its derivative.

    Given a = u the slope is Gaussian of mean X u/K and variance S − X²/K. For pairs of positions see `_of_pairs`.
    """
    def some(value, slope, cross):
        x, share = between_hinges(step.seen, torch.zeros_like(value), value)
        seen = step.describe(x.flatten(0, 2))
        y, gate = (part.detach().reshape(x.shape) for part in (seen.output(seen.input), seen.derivative(seen.input)))
        drift = cross / torch.where(value > 0, value, 1.0)
        left = slope - drift * cross
        found = [(part * share).sum((0, 1)).mean(-1) for part in (
            y**2, gate**2 * (left + (drift * x) ** 2), y * gate * drift * x, gate**2)]
        if not field.pairs:
            return torch.stack(found)
        # E[y h_k(z)] for the Hermite polynomials of mean square 1, z the value over its standard deviation.
        z = x / torch.where(value > 0, value, 1.0).sqrt()
        below, here = torch.zeros_like(z), y * share
        for k in range(_ORDERS):
            found.append(here.sum((0, 1)).mean(-1))
            below, here = here, (z * here - math.sqrt(k) * below) / math.sqrt(k + 1)
        return torch.stack(found)

    # Channels with settings of their own stand beside one another.
    flat = [diagonal(moment).flatten()[:, None].expand(-1, step.channels).split(_AT_ONCE)
            for moment in field.moments()]
    found = torch.cat([some(*parts) for parts in zip(*flat, strict=True)], 1).unflatten(1, field.value.shape[:3])
    return list(_of_pairs(field, found[:4], found[4:]) if field.pairs else found[:3]), found[3]


def _of_pairs(field: Field, own: Tensor, parts: Tensor) -> Tensor:
    """``(3, R, P, N, N)``: E[y_p y_q], E[y'_p y'_q], E[y'_p y_q] behind a unit y = g(a).

    For Gaussian values of correlation ρ, E[f(a_p) h(a_q)] = Σ_k f_k h_k ρ^k (F. G. Mehler, 1866), where f_k = E[f h_k]
    of the Hermite polynomials; and those of g' are √(k + 1) g_{k+1}/σ. The value moment is a function of K_pp, K_qq and
    K_pq, whose derivatives along the path are the others:

        E[y'_p y_q]  = E[g'g'] X_pq + E[g''g] X_pp
        E[y'_p y'_q] = E[g'g'] S_pq + E[g''g''](X_pq X_qp + X_pp X_qq) + E[g'''g'] X_pp X_qp + E[g'g'''] X_qq X_pq

    Parameters
    ----------
    own, parts
        ``(4, R, P, N)``, the three at p = q and E[g'_p²], and ``(K, R, P, N)``, g_k.
    """
    value, slope, cross = field.moments()
    root = torch.where(diagonal(value) > 0, diagonal(value), 1.0).sqrt()
    orders = [parts]
    for _ in range(3):
        rise = torch.arange(1, len(orders[-1]), dtype=root.dtype, device=root.device).sqrt().view(-1, 1, 1, 1)
        orders.append(rise * orders[-1][1:] / root)
    correlation = (value / (root[..., :, None] * root[..., None, :])).clamp(-1, 1)
    count = len(orders[-1])
    plain, first, second, third = (part[:count] for part in orders)

    def joint(one: Tensor, other: Tensor) -> Tensor:
        total = torch.zeros_like(correlation)
        for left, right in zip(one.flip(0), other.flip(0), strict=True):
            total.mul_(correlation).addcmul_(left[..., :, None], right[..., None, :])
        return total

    # Of E[g'g'] higher orders as well: where g' steps, its squares fall as k^(−3/2), and this is the mean of ρ^k.
    x = -count * correlation.clamp(min=1e-300).log()
    rest = (own[3] - (first**2).sum(0)).clamp(min=0).sqrt()
    higher = rest[..., :, None] * rest[..., None, :] * (torch.exp(-x) - (math.pi * x).sqrt() * torch.erfc(x.sqrt()))
    ends = diagonal(cross)[..., :, None], diagonal(cross)[..., None, :]
    gates, bends, turns = joint(first, first) + higher, joint(second, second), joint(third, first)
    slopes = (gates * slope + bends * (cross * cross.mT + ends[0] * ends[1]) + turns * ends[0] * cross.mT
              + turns.mT * ends[1] * cross)
    found = torch.stack([joint(plain, plain), slopes, gates * cross + joint(second, plain) * ends[0]])
    found.diagonal(dim1=-2, dim2=-1).copy_(own[:3])
    return found


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
    still = derivative == 0 if meets and slopes is not None and not slopes.below else None

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
        return Stage(behind, pull(slopes.product + slopes.square_step / 2), rates(field), still)
    if not field.roots:
        raise ValueError(f"{step.name} acts on the inputs themselves: a linear or convolutional layer has to come "
                         "before it")
    if field.gaussian and not run.joint and (not field.pairs or step.channels == 1):
        moments, passed = by_quadrature(step, field)
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
    return Stage(behind, pull(passed), made, still)
