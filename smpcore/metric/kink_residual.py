"""Second differences minus their smooth background: the part that kinks added to them.

A kink with jump J, a fraction α into a cell, adds (1−α)J and αJ to two neighbouring second differences: the
sum of what it adds is J wherever it lies. To read that sum, the smooth background under it has to be known:
it is interpolated through the nearest samples that no kink touches, one fit for each suspected sample.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.background_fit import above_background, taken, true_places

# A robust standard deviation is this many median absolute deviations.
_MAD = 1.4826
# What white noise of deviation 1 leaves in `_interpolation_error`.
_GAIN = math.sqrt(1 + 2 * (4**2 + 1) / 6**2)
# A kink also changes the interpolation two and three samples away, by 2/3 and by 1/6 of itself. Where kinks are few,
# the fit decides whether the larger of these errors is a second kink. Where they are many, masking both would leave too
# few samples for a background; a second kink is found after the first has been subtracted.
_SIDELOBE, _SIDELOBE_CROWDED = 0.3, 0.67
# Where kinks touch fewer of a row's samples than this, they cannot have moved its medians by more than 3%.
_FEW = 1 / 50
_MORE_PASSES = 3
# Samples in a block on a CPU: few enough to stay in its cache during several passes.
_BLOCK = 1 << 18


class Parts(NamedTuple):
    """The samples that kinks changed, in order: ``where``, flat index into (B, n); ``jump``, what kinks added
    there; ``sign`` ±1, that of the kink it belongs to."""

    where: Tensor
    jump: Tensor
    sign: Tensor

    def totals(self, rows: int, samples: int) -> Tensor:
        """Sum of magnitudes of each row, ``(rows,)``."""
        zero = torch.zeros(rows, dtype=self.jump.dtype, device=self.jump.device)
        # A part that does not stand out has its neighbour's sign, so that noise in it averages out.
        return zero.index_add_(0, self.where // samples, self.jump * self.sign)


class _Suspects(NamedTuple):
    """Samples with an interpolated background: flat index, sample minus background, whether that stands out."""

    where: Tensor
    left: Tensor
    stands_out: Tensor


def kink_parts(second: Tensor, window: int, threshold: float, rounding: Tensor) -> tuple[Parts, Tensor]:
    """Split second differences into smooth background and kinks.

    Parameters
    ----------
    second
        ``(B, n)``, n at least ``window + 2``.
    window
        Odd, at least 7: the background is a cubic through the (window − 1)/2 nearest untouched samples on
        either side.
    threshold
        Robust standard deviations that a part has to exceed.
    rounding
        ``(B,)``: deviations below this are rounding.

    Returns
    -------
    parts
        Of all rows.
    noise
        ``(B,)``, the robust deviation of the interpolation error where there is no kink.
    """
    rows, samples = second.shape
    noise, hits = _first_look(second, threshold, rounding)
    suspects = _examine(second, hits, noise, window, threshold)
    touched, hit = (torch.bincount(where // samples, minlength=rows) for where in (suspects.where, hits))
    # Rows with many kinks, or with too few samples left for a background.
    enough = max(window - 1, samples / 2)
    crowded = (touched > _FEW * samples) | (samples - hit < enough)
    if crowded.any():
        chosen = true_places(crowded)
        # Their kinks raised these rows' medians, so that others were missed: subtract those found and test again.
        again, noise[chosen] = _look_again(
            second[chosen], _of_rows(suspects, chosen, samples), rounding[chosen], window, threshold)
        suspects = _replaced(suspects, crowded, again, samples)
    return _signed(suspects, samples), noise


def _first_look(second: Tensor, threshold: float, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Noise ``(B,)`` of each row, and the flat indices of the samples that interpolation misses."""
    noise, hits, start = [], [], 0
    for block in blocks(second):
        error = _interpolation_error(block)
        noise.append(torch.maximum(robust_deviation(error), rounding[start:start + len(block)]))
        hit = _hits_of_error(block, error, threshold * noise[-1], _SIDELOBE)
        hits.append(_grown(hit, block) + start * second.shape[1])
        start += len(block)
    return torch.cat(noise), torch.cat(hits)


def blocks(rows: Tensor) -> Sequence[Tensor]:
    """Rows ``(B, n)`` in parts: on a CPU as many at a time as stay in its cache."""
    return rows.split(max(1, _BLOCK // rows.shape[1]) if rows.device.type == "cpu" else max(1, len(rows)))


def _look_again(second: Tensor, suspects: _Suspects, rounding: Tensor, window: int,
                threshold: float) -> tuple[_Suspects, Tensor]:
    """Suspects and noise ``(B,)`` of rows after the kinks found so far have been subtracted."""
    samples, noise, before = second.shape[1], torch.empty_like(rounding), None
    for _ in range(_MORE_PASSES):
        clean = second.clone()
        clean.view(-1)[suspects.where] -= suspects.left
        standing = _mask(suspects.where[suspects.stands_out], clean)
        # A pass depends on these two alone: a row in which neither changed gives the same result as before.
        moved = torch.ones_like(rounding, dtype=torch.bool)
        if before is not None:
            moved = (clean != before[0]).any(1) | (standing != before[1]).any(1)
        before = clean, standing
        rows = true_places(moved)
        if not len(rows):
            break
        clean, standing, least = clean[rows], standing[rows], rounding[rows]
        error = _interpolation_error(clean)
        noise[rows] = deviation = torch.maximum(robust_deviation(error), least)
        missed = _hits_of_error(clean, error, threshold * deviation, _SIDELOBE_CROWDED)
        missed = _grown(torch.cat([missed, true_places(standing)]), clean)
        hits = _mask(torch.cat([missed, _hits_of_curvature(clean, least, threshold)]), clean)
        found = _examine(second[rows], true_places(hits), deviation, window, threshold)
        suspects = _replaced(suspects, moved, found, samples)
    return suspects, noise


def _interpolation_error(second: Tensor) -> Tensor:
    """|sample − cubic through the samples 2 and 3 to its left and right|, ``(B, n)``.

    The next neighbours are left out, because they may share a kink with the sample. Ends are continued by point
    reflection, which keeps a straight background straight.
    """
    first, last = second[:, :1], second[:, -1:]
    error = torch.empty_like(second)
    _miss(torch.cat([2 * first - second[:, 1:4].flip(1), second[:, :6]], 1), error[:, :3])
    _miss(second, error[:, 3:-3])
    _miss(torch.cat([second[:, -6:], 2 * last - second[:, -4:-1].flip(1)], 1), error[:, -3:])
    return error.abs_()


def _miss(second: Tensor, error: Tensor) -> None:
    """Sample minus cubic, for all but three samples at either end."""
    near = second[:, 1:-5] + second[:, 5:-1]
    torch.sub(second[:, 3:-3], near, alpha=4 / 6, out=error)
    error.add_(second[:, :-6], alpha=1 / 6).add_(second[:, 6:], alpha=1 / 6)


def _hits_of_error(second: Tensor, error: Tensor, limit: Tensor, sidelobe: float) -> Tensor:
    """Flat indices of samples that interpolation misses, sidelobes apart."""
    hit = true_places(error > limit[:, None])
    flat = error.view(-1)
    strongest = taken(flat, _around(hit, (-3, -2, 2, 3), error.shape[1])).amax(0)
    hit = hit[taken(flat, hit) >= sidelobe * strongest]
    return hit[_sharp(second, hit)]


def _hits_of_curvature(second: Tensor, rounding: Tensor, threshold: float) -> Tensor:
    """Flat indices of samples whose own second difference stands out: a coarser test that uses neighbours alone."""
    bend = second.diff().diff().abs_()
    limit = threshold * torch.maximum(robust_deviation(bend), rounding)
    hit = true_places(bend > limit[:, None])
    # A row of bends is two shorter, and begins one later.
    hit = hit + 2 * (hit // bend.shape[1]) + 1
    hit = hit[_sharp(second, hit)]
    # The ends have no second difference: each is taken with its neighbour.
    place = hit % second.shape[1]
    return torch.cat([hit, hit[place == 1] - 1, hit[place == second.shape[1] - 2] + 1])


def _sharp(second: Tensor, where: Tensor) -> Tensor:
    """Whether differences grow with their order near a sample, as at a kink, or shrink, as on a smooth bend.

    At a kink |δ⁶| is about three times |δ⁴| wherever it lies in its cell; on a curve that the samples resolve
    it is less than |δ⁴|. The comparison needs no scale, so that a bend in a flat signal is not taken for kinks.
    """
    near = taken(second.view(-1), _around(where, range(-3, 4), second.shape[1]))
    fourth = near.diff(n=2, dim=0)
    return fourth.diff(n=2, dim=0).abs().amax(0) > fourth[1:-1].abs().amax(0)


def _examine(second: Tensor, hits: Tensor, noise: Tensor, window: int, threshold: float) -> _Suspects:
    """Fit the background under all samples that were hit; then again without those that did not stand out."""
    _, stands_out = above_background(second, hits, noise / _GAIN, window, threshold)
    where = _grown(hits[stands_out], second)
    return _Suspects(where, *above_background(second, where, noise / _GAIN, window, threshold))


def _signed(suspects: _Suspects, samples: int) -> Parts:
    """Give parts that do not stand out the sign of the larger neighbour that does; drop those without one."""
    where, left, stands_out = suspects
    own = torch.where(stands_out, left, 0)
    quiet = torch.zeros_like(own[:1])
    joined = (where.diff() == 1) & (where[1:] % samples > 0)
    after = torch.cat([torch.where(joined, own[1:], 0), quiet]) if len(own) else own
    before = torch.cat([quiet, torch.where(joined, own[:-1], 0)]) if len(own) else own
    neighbour = torch.where(before.abs() >= after.abs(), before, after)
    sign = torch.where(stands_out, left, neighbour).sign()
    keep = sign != 0
    return Parts(where[keep], left[keep], sign[keep])


def _of_rows(suspects: _Suspects, rows: Tensor, samples: int) -> _Suspects:
    """The suspects of some rows (ascending), indexed as if there were no others."""
    row = suspects.where // samples
    index = torch.searchsorted(rows, row).clamp_max_(len(rows) - 1)
    here = rows[index] == row
    where = index * samples + suspects.where % samples
    return _Suspects(where[here], suspects.left[here], suspects.stands_out[here])


def _replaced(suspects: _Suspects, chosen: Tensor, new: _Suspects, samples: int) -> _Suspects:
    """The suspects with those of the rows in the mask ``chosen (B,)`` replaced; ``new`` is indexed as if there were
    no others."""
    rows = true_places(chosen)
    if len(rows) == len(chosen):
        return new
    kept = ~chosen[suspects.where // samples]
    new = new._replace(where=rows[new.where // samples] * samples + new.where % samples)
    joined = _Suspects(*(torch.cat([old[kept], part]) for old, part in zip(suspects, new, strict=True)))
    order = joined.where.argsort()
    return _Suspects(*(column[order] for column in joined))


def _around(where: Tensor, offsets: Iterable[int], samples: int) -> Tensor:
    """Flat indices ``(offsets, K)`` of the neighbours of ``where (K,)``, ends of rows repeated."""
    first = where - where % samples
    span = torch.tensor(list(offsets), device=where.device)[:, None]
    return torch.minimum(torch.maximum(where + span, first), first + (samples - 1))


def _mask(where: Tensor, like: Tensor) -> Tensor:
    """True at the flat indices ``where``, of the other's shape."""
    mask = torch.zeros_like(like, dtype=torch.bool)
    mask.view(-1).index_fill_(0, where, True)
    return mask


def _grown(where: Tensor, like: Tensor) -> Tensor:
    """Flat indices and their neighbours to the left and right within a row, ascending, none twice."""
    return true_places(_mask(_around(where, (-1, 0, 1), like.shape[1]).view(-1), like))


def robust_deviation(magnitudes: Tensor) -> Tensor:
    """Robust standard deviation of each row of magnitudes: 1.4826 times their (lower) median."""
    return _MAD * lower_median(magnitudes)


def lower_median(magnitudes: Tensor) -> Tensor:
    """The (lower) median of each row, ``(B, n) -> (B,)``."""
    middle = (magnitudes.shape[1] - 1) // 2
    if magnitudes.device.type == "cpu":  # numpy selects four to eight times as fast as torch does
        found = np.partition(magnitudes.numpy(), middle, axis=1)[:, middle]
        return torch.from_numpy(np.ascontiguousarray(found))
    return magnitudes.kthvalue(middle + 1, dim=1).values
