"""Gaussian fields drawn, values and slopes together, and second moments taken of draws."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.orthant import symmetric_root
from smpcore.propagation.random_weights.second_moments import Field, diagonal

__all__ = ["REPLICATES", "as_many", "drawn", "draws_for", "matched", "moments_of", "normal", "once", "paired", "pulled",
           "sampled", "windows_drawn"]

#: Independent sets of draws: each is carried to the end by itself, and their scatter is the Monte Carlo error.
REPLICATES = 4
# Positions above which fewer channels are drawn, as their means are taken over positions as well.
_LARGE = 1024


def draws_for(positions: int, mixed: bool = False) -> int:
    """Channels drawn in each replicate: many where the map is small; fewer where maps pass through drawn weights."""
    count = min(4096, max(160 if positions <= _LARGE else 32, 2**15 // positions))
    return min(count, 128, max(16, 2**18 // positions)) if mixed else count


def once(make):
    """A function that makes draws when they are first asked for; whatever they are made of is then let go."""
    kept = [make]

    def draw():
        if callable(kept[0]):
            kept[0] = kept[0]()
        return kept[0]

    return draw


def normal(square: float, shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Gaussian numbers of this mean square."""
    white = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return math.sqrt(square) * white.to(like.device)


def as_many(draws: Tensor, count: int) -> Tensor:
    """The first ``count`` of draws ``(R, P, M, N)``, or all of them over and over."""
    there = draws.shape[2]
    return draws if there == count else draws[:, :, torch.arange(count, device=draws.device) % there]


def matched(draws: Tensor, square: Tensor, squares: Tensor | None = None) -> Tensor:
    """Draws ``(R, P, M, N)`` scaled to mean squares that are known, so that errors do not grow from layer to layer.

    ``squares`` are those whose mean is known, where they are not the draws' own.
    """
    squares = draws**2 if squares is None else squares
    return draws * (square / squares.mean(2).clamp(min=1e-300)).sqrt()[:, :, None]


def pulled(gain: Tensor, squares, draws) -> list[Tensor]:
    """Gains before a step: mean squares ``(R, P, N)`` by the one function, draws ``(R, P, M, N)`` by the other."""
    return [squares(gain)] if gain.dim() == 3 else [matched(draws(gain), squares((gain**2).mean(2)))]


def paired(*draws: tuple[Tensor, Tensor]) -> list[tuple[Tensor, ...]]:
    """Draws of as many channels each, the mirror images at the same places."""
    count = min(values.shape[2] for values, _ in draws) // 2
    return [tuple(part if part.shape[2] == 2 * count else torch.cat(
        [half[:, :, :count] for half in part.chunk(2, 2)], 2) for part in both) for both in draws]


def sampled(field: Field, seed: int) -> Field:
    """With draws of a Gaussian field: the same numbers at every call and every time."""
    return replace(field, draw=once(lambda: _gaussian(field, seed)))


def _gaussian(field: Field, seed: int) -> tuple[Tensor, Tensor]:
    count, n = draws_for(field.positions), field.positions
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(REPLICATES, 1, count // 2, 2 * n, generator=generator, dtype=torch.float64)
    white = white.to(field.value.device)
    if not field.pairs:
        value, slope, cross = field.moments()
        root = value.clamp(min=0).sqrt()[:, :, None]
        share = cross[:, :, None] / torch.where(root > 0, root, 1.0)
        left = (slope[:, :, None] - share**2).clamp(min=0).sqrt()
        first, second = white[..., :n], white[..., n:]
        return _mirrored(root * first), _mirrored(share * first + left * second)
    return _joint(*field.moments(), white)


def windows_drawn(moments: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Values and slopes ``(R, P, M, W, k)`` of Gaussian windows by their moments ``(R, P, W, k, k)``, one by one."""
    size, k = moments[0].shape[-3:-1]
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(REPLICATES, 1, size, draws_for(size * k) // 2, 2 * k, generator=generator, dtype=torch.float64)
    return tuple(part.transpose(2, 3) for part in _joint(*moments, white.to(moments[0].device), 3))


def _joint(value: Tensor, slope: Tensor, cross: Tensor, white: Tensor, axis: int = 2) -> tuple[Tensor, Tensor]:
    """Values and slopes that go with each other, mirror images along ``axis``."""
    n = value.shape[-1]
    # In units of each kind's own size, one jitter serves both.
    units = [diagonal(part).mean(-1).clamp(min=1e-300).sqrt()[..., None, None] for part in (value, slope)]
    joint = torch.cat([torch.cat([value / units[0]**2, cross.mT / (units[0] * units[1])], -1),
                       torch.cat([cross / (units[0] * units[1]), slope / units[1]**2], -1)], -2)
    both = white @ _factor(joint).mT
    return tuple(torch.cat([part, -part], axis) for part in (both[..., :n] * units[0], both[..., n:] * units[1]))


def _mirrored(draws: Tensor) -> Tensor:
    """Each draw with its mirror image: what is odd drops out of every mean."""
    return torch.cat([draws, -draws], 2)


def _factor(joint: Tensor) -> Tensor:
    """A triangular factor; directions of no variance, and rounding, are covered by a jitter."""
    eye = torch.eye(joint.shape[-1], dtype=joint.dtype, device=joint.device)
    for jitter in (1e-9, 1e-7, 1e-5):
        factor, failed = torch.linalg.cholesky_ex(joint + jitter * eye)
        if not bool(failed.any()):
            return factor
    return symmetric_root(joint)


def drawn(field: Field, values: Tensor, slopes: Tensor, **changes) -> Field:
    """A field known by its draws."""
    value, slope, cross = moments_of(values, slopes, field.pairs)
    return replace(field, value=value, slope=slope, cross=cross, gaussian=False, core=None, rest=None,
                   before=None, across=None, given=None, draw=lambda: (values, slopes), **changes)


def moments_of(values: Tensor, slopes: Tensor, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments over draws ``(R, P, M, N)``."""
    count = values.shape[2]
    if pairs:
        return values.mT @ values / count, slopes.mT @ slopes / count, slopes.mT @ values / count
    return (values**2).mean(2), (slopes**2).mean(2), (values * slopes).mean(2)
