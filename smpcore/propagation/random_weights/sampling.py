"""Gaussian fields drawn, values and slopes together, and second moments taken of draws."""

from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.orthant import symmetric_root
from smpcore.propagation.random_weights.second_moments import Field, diagonal

__all__ = ["REPLICATES", "drawn", "moments_of", "sampler"]

#: Independent sets of draws: each is carried to the end by itself, and their scatter is the Monte Carlo error.
REPLICATES = 4


def draws_for(positions: int) -> int:
    """Channels drawn in each replicate: many where the map is small."""
    return int(min(4096, max(160, 2**15 // positions)))


def sampler(field: Field, seed: int):
    """A function that draws a Gaussian field: the same numbers at every call and every time."""
    kept = []

    def draw() -> tuple[Tensor, Tensor]:
        if not kept:
            kept.append(_gaussian(field, seed))
        return kept[0]

    return draw


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
    value, slope, cross = field.moments()
    # In units of each kind's own size, one jitter serves both.
    units = [diagonal(part).mean(-1).clamp(min=1e-300).sqrt()[..., None, None] for part in (value, slope)]
    joint = torch.cat([torch.cat([value / units[0]**2, cross.mT / (units[0] * units[1])], -1),
                       torch.cat([cross / (units[0] * units[1]), slope / units[1]**2], -1)], -2)
    factor = _factor(joint)
    both = white @ factor.mT
    return _mirrored(both[..., :n] * units[0]), _mirrored(both[..., n:] * units[1])


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
                   before=None, draw=lambda: (values, slopes), **changes)


def moments_of(values: Tensor, slopes: Tensor, pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments over draws ``(R, P, M, N)``."""
    count = values.shape[2]
    if pairs:
        return values.mT @ values / count, slopes.mT @ slopes / count, slopes.mT @ values / count
    return (values**2).mean(2), (slopes**2).mean(2), (values * slopes).mean(2)
