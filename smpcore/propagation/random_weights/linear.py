"""Stages of what is linear in its inputs, and of what only arranges them."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from smpcore.propagation.random_weights.sampling import sampler
from smpcore.propagation.random_weights.second_moments import (
    Field,
    adjoint,
    conv_map,
    diagonal,
    linear_positions,
    scaled,
)
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["batch_norm", "conv", "flatten", "identity", "linear", "linear_map", "rearrange", "residual_sum"]


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
    if step.settings.get("start_dim", 1) != 1 or step.settings.get("end_dim", -1) not in (-1, len(fields[0].sides) + 1):
        raise ValueError(f"{step.name} flattens some dimensions only: all but the batch have to go")
    return Stage(replace(fields[0], flat=True), _same)


def linear(step, fields, run) -> Stage:
    """K' = σ_w² C Σ_p K(p, p) + σ_b²; backward σ_w² times the number of units behind."""
    field, layer = fields[0], step.module
    if field.sides and not field.flat:
        raise ValueError(f"{step.name} stands behind a map of {field.sides} that is not flattened: put nn.Flatten "
                         "in between")
    power = float((layer.weight.detach().double() ** 2).mean())
    fan_in = field.channels * field.positions
    if layer.in_features != fan_in:
        raise ValueError(f"{step.name} takes {layer.in_features} features, and gets {fan_in}: the path's inputs do not "
                         "fit the model")
    total = [diagonal(moment).sum(-1)[..., None] * field.channels * power for moment in field.moments()]
    if field.pairs:
        total = [moment[..., None] for moment in total]
    bias = _bias(layer)
    behind = Field(total[0] + bias, total[1], total[2], layer.out_features, (), gaussian=True,
                   roots=frozenset([step.name.split("#")[0]]))
    shape = field.positions

    def pull(gain):
        alike = power * layer.out_features * diagonal(gain)
        alike = alike.expand(*alike.shape[:2], shape)
        return [torch.diag_embed(alike) if gain.dim() == 4 else alike]

    return Stage(_drawable(behind, run), pull)


def conv(step, fields, run) -> Stage:
    """K'(p, q) = σ_w² (C/groups) Σ_δ K(p + δ, q + δ) + σ_b²; backward its transpose, C' for C."""
    field, layer = fields[0], step.module
    if len(field.sides) != len(layer.kernel_size) or field.flat:
        raise ValueError(f"{step.name} is a {type(layer).__name__}, and gets a map with {len(field.sides)} sides")
    if layer.in_channels != field.channels:
        raise ValueError(f"{step.name} takes {layer.in_channels} channels, and gets {field.channels}")
    power = float((layer.weight.detach().double() ** 2).mean())
    apply, sides = conv_map(layer, field.sides)
    forward = power * layer.in_channels / layer.groups
    moments = [forward * apply(moment) for moment in field.moments()]
    behind = Field(moments[0] + _bias(layer), moments[1], moments[2], layer.out_channels, sides, gaussian=True,
                   roots=frozenset([step.name.split("#")[0]]))
    backward = power * layer.out_channels / layer.groups

    def pull(gain):
        return [backward * adjoint(apply, field.positions, gain)]

    return Stage(_drawable(behind, run), pull)


def _bias(layer) -> float:
    return 0.0 if layer.bias is None else float((layer.bias.detach().double() ** 2).mean())


def _drawable(field: Field, run) -> Field:
    return replace(field, draw=sampler(field, run.next_seed()))


def batch_norm(step, fields, run) -> Stage:
    """y = g_c x + o_c in evaluation mode, g and o of the channels counting as drawn."""
    field, layer = fields[0], step.module
    if layer.running_var is None:
        raise ValueError(f"{step.name} keeps no running statistics, so it mixes the samples of a batch: use "
                         "track_running_stats=True")
    gain = (layer.running_var.detach().double() + layer.eps).rsqrt()
    if layer.affine:
        gain = gain * layer.weight.detach().double()
    offset = -layer.running_mean.detach().double() * gain
    if layer.affine:
        offset = offset + layer.bias.detach().double()
    power, shift = float((gain**2).mean()), float((offset**2).mean())
    if shift > 0 and not field.gaussian:
        raise ValueError(f"{step.name} shifts a map that is not Gaussian of mean 0: only a batch norm directly behind "
                         "a linear or convolutional layer may have means or biases")
    behind = scaled(field, power, shift, core=None if field.core is None else scaled(field.core, power))
    if field.gaussian:
        behind = _drawable(behind, run)
    else:
        behind = replace(behind, draw=_times(field.draw, math.sqrt(power)), rest=_times(field.rest, math.sqrt(power)))
    return Stage(behind, lambda behind_gain: [power * behind_gain])


def _times(draw, factor: float):
    return None if draw is None else lambda: tuple(factor * part for part in draw())


def residual_sum(step, fields, run) -> Stage:
    """Moments add where one side is of mean 0 and drawn by weights that the other knows nothing of."""
    one, other = fields
    if one.sides != other.sides or one.channels != other.channels or one.flat != other.flat:
        raise ValueError(f"{step.name} adds a map of {one.channels} × {one.sides} to one of {other.channels} × "
                         f"{other.sides}: both have to be alike")
    if not (one.gaussian or other.gaussian) or one.roots & other.roots:
        raise ValueError(f"{step.name} adds two maps that are not independent, or neither of them Gaussian of mean 0: "
                         "one of the two has to come straight from a linear or convolutional layer of its own")
    moments = [a + b for a, b in zip(one.moments(), other.moments(), strict=True)]
    behind = Field(*moments, one.channels, one.sides, one.flat, roots=one.roots | other.roots)
    if one.gaussian and other.gaussian:
        behind = _drawable(replace(behind, gaussian=True), run)
    else:
        core, rest = (one, other) if one.gaussian else (other, one)

        def draw():
            return tuple(a + b for a, b in zip(core.draw(), rest.draw(), strict=True))

        behind = replace(behind, core=core, rest=rest.draw, draw=draw)
    return Stage(behind, lambda gain: [gain, gain])


def linear_map(step, fields, run) -> Stage:
    """y = A x in every channel: K' = A K Aᵀ, squared gains by its transpose."""
    field = fields[0]
    matrix, sides = _matrix(step, field)
    apply = linear_positions(matrix)
    core = None
    if field.core is not None:
        core = field.core.map(apply, sides=sides)
    behind = field.map(apply, sides=sides, core=core, draw=_mapped(field.draw, matrix),
                       rest=_mapped(field.rest, matrix))
    if step.op == "mean" and not step.settings.get("keepdim"):
        behind = replace(behind, sides=(), flat=False)
    return Stage(behind, lambda gain: [adjoint(apply, field.positions, gain)])


def _mapped(draw, matrix: Tensor):
    return None if draw is None else lambda: tuple(part @ matrix.mT for part in draw())


def _matrix(step, field: Field) -> tuple[Tensor, tuple[int, ...]]:
    """A linear map of positions, read off by sending each position through it."""
    if not field.sides or field.flat:
        raise ValueError(f"{step.name} needs a map with sides, and gets features")
    n = field.positions
    each = torch.eye(n, dtype=torch.float64).reshape(n, 1, *field.sides)
    if step.op == "mean":
        dims = step.settings.get("dim")
        dims = sorted(d % (len(field.sides) + 2) for d in ([dims] if isinstance(dims, int) else dims or []))
        if dims != list(range(2, len(field.sides) + 2)):
            raise ValueError(f"{step.name} takes the mean over dimensions {dims}: only over all positions is known")
        return torch.full((1, n), 1 / n, dtype=torch.float64, device=field.value.device), (1,) * len(field.sides)
    settings = {name: value for name, value in step.settings.items() if value is not None}
    if step.op == "upsample":
        behind = nn.functional.interpolate(each, **{"mode": "nearest"} | settings)
    else:
        word = "adaptive_avg_pool" if step.op.startswith("adaptive") else "avg_pool"
        behind = getattr(nn.functional, f"{word}{len(field.sides)}d")(each, **settings)
    return behind.reshape(n, -1).T.contiguous().to(field.value.device), tuple(behind.shape[2:])
