"""Stages of what is linear in its inputs, and of what only arranges them."""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from smpcore.inspection.module_scope import call_site
from smpcore.propagation.random_weights.sampling import (
    REPLICATES,
    as_many,
    draws_for,
    matched,
    normal,
    once,
    paired,
    pulled,
    sampled,
)
from smpcore.propagation.random_weights.second_moments import (
    Field,
    adjoint,
    conv_map,
    diagonal,
    linear_positions,
    pad_map,
    scaled,
    shift,
)
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["batch_norm", "conv", "flatten", "identity", "is_depthwise", "linear", "linear_map", "pad", "rearrange",
           "residual_sum"]


def _same(gain: Tensor) -> list[Tensor]:
    return [gain]


def identity(step, fields, run) -> Stage:
    """Nothing happens: dropout in evaluation mode, contiguous copies."""
    return Stage(fields[0], _same)


def rearrange(step, fields, run) -> Stage:
    """Refused: channels are then no longer copies of one another."""
    raise ValueError(f"{step.name} picks or reorders numbers, which moments='weights' does not follow: wrap the model "
                     "so that a linear readout comes last, or use moments='measured'")


def flatten(step, fields, run) -> Stage:
    """The same map as features."""
    return Stage(replace(fields[0], flat=True), _same)


def _mean_square(step, name: str) -> float:
    part = step.settings.get(name)
    return 0.0 if part is None else float((part.double() ** 2).mean())


def linear(step, fields, run) -> Stage:
    """K' = σ_w² C Σ_p K(p, p) + σ_b²; backward σ_w² times the number of units behind."""
    field, power = fields[0], _mean_square(step, "weight")
    if field.sides and not field.flat:
        raise ValueError(f"{step.name} stands behind a map of {field.sides} that is not flattened: put nn.Flatten "
                         "in between")
    (out,) = step.shape
    total = [diagonal(moment).sum(-1)[..., None] * field.channels * power for moment in field.moments()]
    behind = Field(total[0] + _mean_square(step, "bias"), total[1], total[2], out, (), gaussian=True,
                   roots=frozenset([call_site(step.name)]))
    shape, seed = field.positions, run.next_seed()

    def pull(gain):
        return pulled(gain, lambda squares: (power * out * squares).expand(*squares.shape[:2], shape),
                      lambda draws: normal(1.0, (REPLICATES, 1, draws_for(shape, True), shape), seed, draws))

    return Stage(sampled(behind, run.next_seed()), pull)


def conv(step, fields, run) -> Stage:
    """K'(p, q) = σ_w² (C/groups) Σ_δ K(p + δ, q + δ) + σ_b²; backward its transpose, C' for C.

    Where maps are drawn, these are so many channels of a network with the same moments, its weights drawn anew; and
    gains backward by weights of their own, for they count as independent of what is in front of them.
    """
    field, power, groups = fields[0], _mean_square(step, "weight"), step.settings.get("groups", 1)
    if not field.sides or field.flat:
        raise ValueError(f"{step.name} needs a map with sides, and gets features")
    kernel = tuple(step.settings["weight"].shape[2:])
    stride, dilation = (_each(step.settings.get(name, 1), kernel) for name in ("stride", "dilation"))
    pads = _pads(step.settings.get("padding", 0), kernel, dilation)
    padded, around = pad_map(field.sides, pads)
    taps, sides = conv_map(kernel, around, stride, dilation)
    channels, forward = step.shape[0], power * field.channels / groups

    def apply(moment):
        return taps(padded(moment))

    behind = field.map(lambda moment: forward * apply(moment),
                       lambda offset: tuple(pace * part for pace, part in zip(stride, offset, strict=True)),
                       channels=channels, sides=sides, gaussian=True, draw=None, core=None, rest=None, before=None,
                       given=None, roots=frozenset([call_site(step.name)]))
    behind = shift(behind, _mean_square(step, "bias"))
    positions, backward = field.positions, power * channels / groups
    convolve = functools.partial(_convolved, padded=padded, around=around, kernel=kernel, stride=stride,
                                 dilation=dilation)
    if run.joint and field.roots and is_depthwise(step):
        return _depthwise(step, field, behind, run, apply, convolve)
    if not run.joint:
        behind = sampled(behind, run.next_seed())
    seeds = run.next_seed(), run.next_seed(), run.next_seed()

    def draw():
        parts, many = field.draw(), draws_for(behind.positions, True)
        before = parts[0].shape[2]
        weights = normal(forward / before, (REPLICATES * many, before, *kernel), seeds[0], field.value)
        values, slopes = (convolve(part.expand(REPLICATES, *part.shape[1:]), weights) for part in parts)
        biases = normal(_mean_square(step, "bias"), (REPLICATES, 1, many, 1), seeds[1], field.value)
        return matched(values + biases, diagonal(behind.value)), matched(slopes, diagonal(behind.slope))

    def before(gain):
        count, many = gain.shape[2], draws_for(positions, True)
        weights = normal(1 / count, (REPLICATES * count, many, *kernel), seeds[2], gain)
        return adjoint(lambda part: convolve(part, weights), positions, gain, many)

    def pull(gain):
        return pulled(gain, lambda squares: backward * adjoint(apply, positions, squares), before)

    return Stage(replace(behind, draw=once(draw)) if run.joint else behind, pull)


def _convolved(draws: Tensor, weights: Tensor, *, padded, around, kernel, stride, dilation) -> Tensor:
    """Draws ``(R, P, M, N)`` by weights ``(R M', M/groups, *kernel)`` of each replicate's own."""
    if weights.shape[1] == 1 and len(weights) == draws.shape[0] * draws.shape[2]:
        # One channel each: quicker tap by tap than by torch's convolution in double precision.
        taps, _ = conv_map(kernel, around, stride, dilation)
        each = weights.reshape(draws.shape[0], 1, draws.shape[2], -1).expand(*draws.shape[:3], -1)
        return taps(padded(draws, 3).flatten(1, 2), each.flatten(1, 2)).unflatten(1, draws.shape[1:3])
    part = padded(draws, 3).unflatten(3, around).transpose(0, 1).flatten(1, 2)
    found = getattr(nn.functional, f"conv{len(kernel)}d")(part, weights, None, stride, 0, dilation,
                                                          part.shape[1] // weights.shape[1])
    return found.flatten(2).unflatten(1, (REPLICATES, -1)).transpose(0, 1)


def _depthwise(step, field: Field, behind: Field, run, apply, convolve) -> Stage:
    """A convolution of which each channel reads few others, whose size is its own.

    Over draws of the weights its output is Gaussian given what it reads: the moments given each draw of that,
    K = σ_w² Σ x², are kept, since a mean over channels of rates, which go with √K, is not the rate of the mean K. A
    gain to what it reads is a sum of few as well, so draws of gains pass through the same weights' transpose.

    ``apply`` is that of any convolution, ``convolve(draws, weights)`` takes weights of their own for each draw.
    """
    weight, groups, power, bias = (step.settings["weight"], step.settings["groups"], _mean_square(step, "weight"),
                                   _mean_square(step, "bias"))
    few, several = weight.shape[1], step.shape[0] // groups
    values, slopes = (part[:, :, :part.shape[2] // few * few] for part in field.draw())
    count = values.shape[2] // few
    weights = normal(power, (REPLICATES * count * several, *weight.shape[1:]), run.next_seed(), values)
    biases = normal(bias, (REPLICATES, 1, count * several, 1), run.next_seed(), values)

    def given(one, other):
        return power * apply((one * other).unflatten(2, (count, few)).sum(3).flatten(1, 2))

    # One row for each draw, scaled to the mean that is known.
    rows = [given(one, other).unflatten(1, (-1, count)) for one, other in (
        (values, values), (slopes, slopes), (slopes, values))]
    known = behind.value - bias, behind.slope
    scale = [(square / part.mean(2).clamp(min=1e-300)).clamp(min=0)[:, :, None]
             for square, part in zip(map(diagonal, known), rows[:2], strict=True)]
    value, slope, cross = ((part * by).flatten(1, 2) for part, by in zip(
        rows, [*scale, (scale[0] * scale[1]).sqrt()], strict=True))
    each = Field(value + bias, slope, cross, 1, behind.sides)
    # Where all that a unit reads is 0, its derivative is that on the side to which its weights take it from there.
    least = 1e-9 * field.value.mean().sqrt()
    drawn = (matched(convolve(values + least, weights) + biases, diagonal(behind.value)),
             matched(convolve(slopes, weights), diagonal(behind.slope)))

    def pull(gain):
        def back(draws, by):
            return adjoint(lambda part: convolve(part, by), field.positions, draws, count * few)

        # Gains of neighbours are alike, and so are gates and weights: the square of the sum is not the sum of squares,
        # whose mean is known.
        gain = as_many(gain, count * several)
        square = several * power * adjoint(apply, field.positions, (gain**2).mean(2))
        return [matched(back(gain, weights), square, back(gain**2, weights**2))]

    return Stage(replace(behind, draw=once(lambda: drawn), given=each), pull)


# Channels in a group up to which a convolution's output has a scale of its own in every channel.
_FEW = 8


def is_depthwise(step) -> bool:
    """Whether each channel of a convolution reads so few others that its size is its own."""
    return step.op == "conv" and step.settings.get("groups", 1) > 1 and step.settings["weight"].shape[1] <= _FEW


def _each(value, like: tuple) -> tuple[int, ...]:
    return (value,) * len(like) if isinstance(value, int) else tuple(value) * (len(like) // len(value))


def _pads(padding, kernel, dilation) -> list[tuple[int, int]]:
    if padding == "valid":
        padding = 0
    if padding == "same":
        whole = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        return [(part // 2, part - part // 2) for part in whole]
    return [(part, part) for part in _each(padding, kernel)]


def pad(step, fields, run) -> Stage:
    """Zeros, or positions of the map once more, around it."""
    field, settings = fields[0], step.settings
    mode, count = settings.get("mode") or "constant", len(field.sides)
    around = list(zip(settings["pad"][::2], settings["pad"][1::2], strict=True))[::-1]
    if settings.get("value") or len(around) > count or field.flat or min(map(min, around), default=0) < 0:
        raise ValueError(f"{step.name} pads with another number than 0, adds channels, or cuts, which has no rule to "
                         "predict it")
    apply, sides = pad_map(field.sides, [(0, 0)] * (count - len(around)) + around, mode)
    return _moved(field, apply, sides, run, (lambda offset: offset) if mode == "constant" else None)


def _moved(field: Field, apply, sides, run, across=None) -> Stage:
    """Behind a linear map of positions, the same for values and slopes of every channel."""
    def drawn(draw):
        return None if draw is None else once(lambda: tuple(apply(part, 3) for part in draw()))

    core = None if field.core is None else field.core.map(apply, across, sides=sides, draw=drawn(field.core.draw))
    behind = field.map(apply, across, sides=sides, core=core, draw=drawn(field.draw), rest=drawn(field.rest),
                       before=None, given=None)

    def pull(gain):
        if gain.dim() == 3:
            return [adjoint(apply, field.positions, gain)]
        return [adjoint(lambda part: apply(part, 3), field.positions, gain, gain.shape[2])]

    return Stage(behind, pull)


def batch_norm(step, fields, run) -> Stage:
    """y = g_c x + o_c in evaluation mode, g and o of the channels counting as drawn."""
    field = fields[0]
    mean, var, weight, bias = (step.settings.get(name) for name in ("running_mean", "running_var", "weight", "bias"))
    if var is None:
        raise ValueError(f"{step.name} keeps no running statistics, so it mixes the samples of a batch: use "
                         "track_running_stats=True")
    gain = (var.double() + step.settings.get("eps", 1e-5)).rsqrt()
    gain = gain if weight is None else gain * weight
    offset = -mean * gain if bias is None else bias - mean * gain
    power, offset = float((gain**2).mean()), float((offset**2).mean())
    if offset > 0 and not field.gaussian:
        raise ValueError(f"{step.name} shifts a map that is not Gaussian of mean 0: only a batch norm directly behind "
                         "a linear or convolutional layer may have means or biases")
    behind = scaled(field, power, offset, core=None if field.core is None else scaled(field.core, power), before=None,
                    given=None if field.given is None else scaled(field.given, power, offset))
    behind = replace(behind, draw=_times(field.draw, math.sqrt(power), offset, run.next_seed()),
                     rest=_times(field.rest, math.sqrt(power)))
    return Stage(behind, lambda gain: [(power if gain.dim() == 3 else math.sqrt(power)) * gain])


def _times(draw, factor: float, offset: float = 0.0, seed: int = 0):
    """Draws times a factor, and a constant of the mean square ``offset`` added to each channel's values."""
    def scaled_draws():
        values, slopes = draw()
        return (factor * values + normal(offset, (values.shape[0], 1, values.shape[2], 1), seed, values),
                factor * slopes)

    return None if draw is None else once(scaled_draws)


def residual_sum(step, fields, run) -> Stage:
    """Moments add where one side is of mean 0 and drawn by weights that the other knows nothing of."""
    one, other = fields
    if not (one.gaussian or other.gaussian) or one.roots & other.roots:
        raise ValueError(f"{step.name} adds two maps that are not independent, or neither of them Gaussian of mean 0: "
                         "one of the two has to come straight from a linear or convolutional layer of its own")

    def added(first, second):
        return tuple(a + b for a, b in zip(first, second, strict=True))

    across = None
    if one.across is not None and other.across is not None:
        def across(offset):
            return added(one.across(offset), other.across(offset))
    behind = Field(*added(one.moments(), other.moments()), one.channels, one.sides, one.flat, across=across,
                   roots=one.roots | other.roots)
    both = once(lambda: added(*paired(one.draw(), other.draw())))
    if one.gaussian and other.gaussian:
        behind = replace(behind, gaussian=True, draw=both)
    else:
        core, rest = (one, other) if one.gaussian else (other, one)
        behind = replace(behind, core=core, rest=rest.draw, draw=both)
    at = run.at

    def pull(gain):
        more = run.on_with_rest.get(at)
        if more is None:
            return [gain, gain]
        to_rest = tuple(gain * part for part in more)
        return [gain, to_rest] if one.gaussian else [to_rest, gain]

    return Stage(behind, pull)


def linear_map(step, fields, run) -> Stage:
    """y = A x in every channel: K' = A K Aᵀ, squared gains by its transpose."""
    field = fields[0]
    matrix, sides = _matrix(step, field)
    return _moved(field, linear_positions(matrix), sides, run)


def _matrix(step, field: Field) -> tuple[Tensor, tuple[int, ...]]:
    """A linear map of positions, read off by sending each position through it."""
    if not field.sides or field.flat:
        raise ValueError(f"{step.name} needs a map with sides, and gets features")
    n = field.positions
    settings = {name: value for name, value in step.settings.items() if value is not None}
    if step.op == "mean":
        dims = settings.get("dim")
        dims = sorted(d % (len(field.sides) + 2) for d in ([dims] if isinstance(dims, int) else dims or []))
        if dims != list(range(2, len(field.sides) + 2)):
            raise ValueError(f"{step.name} takes the mean over dimensions {dims}: only over all positions is known")
    if step.op == "mean" or (step.op == "adaptive average pool" and torch.Size(step.shape[1:]).numel() == 1):
        return torch.full((1, n), 1 / n, dtype=torch.float64, device=field.value.device), tuple(step.shape[1:])
    each = torch.eye(n, dtype=torch.float64).reshape(n, 1, *field.sides)
    if step.op == "upsample":
        behind = nn.functional.interpolate(each, **{"mode": "nearest"} | settings)
    else:
        word = "adaptive_avg_pool" if step.op.startswith("adaptive") else "avg_pool"
        behind = getattr(nn.functional, f"{word}{len(field.sides)}d")(each, **settings)
    return behind.reshape(n, -1).T.contiguous().to(field.value.device), tuple(behind.shape[2:])
