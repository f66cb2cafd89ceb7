"""What no smooth curve explains: the part of the second differences that kinks have left there.

A kink with jump J, a fraction α into a cell, adds (1−α)J and αJ to two neighbouring second differences: the
sum of what it adds is J wherever it lies. To read that sum, the smooth background under it has to be known:
it is interpolated through the nearest samples that no kink touches, one fit for each suspected sample.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A robust standard deviation is this many median absolute deviations.
_MAD = 1.4826
# What white noise of deviation 1 leaves in `_interpolation_error`.
_GAIN = math.sqrt(1 + 2 * (4**2 + 1) / 6**2)
# Near a lone kink the interpolation errs too, by 2/3 and by 1/6 of it two and three samples off. Where kinks
# are few, the fit decides whether the former is a second kink; where they are many, masking both would leave
# no background, and a second kink shows when the first has been taken out.
_SIDELOBE, _SIDELOBE_CROWDED = 0.3, 0.67
# Where kinks touch fewer of a row's samples than this, they cannot have moved its medians by more than 3%.
_FEW = 1 / 50
_MORE_PASSES = 3
# Where the cubic is more than twice as uncertain as a sample, the highest degree that is not is tried as well.
_FAR = 4.0


class Parts(NamedTuple):
    """The samples that kinks touch, in order: ``where``, flat index into (B, n); ``jump``, what kinks added
    there; ``sign`` ±1, that of the kink it belongs to."""

    where: Tensor
    jump: Tensor
    sign: Tensor

    def totals(self, rows: int, samples: int) -> Tensor:
        """Sum of magnitudes of each row, ``(rows,)``."""
        zero = torch.zeros(rows, dtype=self.jump.dtype, device=self.jump.device)
        # A part too small to have a sign of its own counts with its neighbour's, so that noise cancels.
        return zero.index_add_(0, self.where // samples, self.jump * self.sign)


class _Suspects(NamedTuple):
    """Samples with an interpolated background: flat index, what is left of them, whether it stands out."""

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
        ``(B,)``, the robust deviation of what interpolation leaves where no kink is.
    """
    rows, samples = second.shape
    error = _interpolation_error(second)
    noise = torch.maximum(_deviation(error), rounding)
    hits = _grown(_hits_of_error(second, error, threshold * noise, _SIDELOBE))
    suspects = _examine(second, hits, noise, window, threshold)
    touched = torch.zeros(rows, dtype=torch.int64, device=second.device)
    touched.index_add_(0, suspects.where // samples, torch.ones_like(suspects.where))
    # Rows with many kinks, or of which the first look has left too little to see a background.
    enough = max(window - 1, samples / 2)
    crowded = (touched > _FEW * samples) | (samples - hits.sum(1) < enough)
    if crowded.any():
        chosen = crowded.nonzero()[:, 0]
        # Kinks have moved these rows' medians and hidden one another: look again at what they leave.
        again, noise[chosen] = _look_again(
            second[chosen], _of_rows(suspects, chosen, samples), rounding[chosen], window, threshold)
        kept = ~crowded[suspects.where // samples]
        again = again._replace(where=chosen[again.where // samples] * samples + again.where % samples)
        suspects = _Suspects(*(torch.cat([old[kept], new]) for old, new in zip(suspects, again, strict=True)))
        order = suspects.where.argsort()
        suspects = _Suspects(*(column[order] for column in suspects))
    return _signed(suspects, samples), noise


def _look_again(
    second: Tensor, suspects: _Suspects, rounding: Tensor, window: int, threshold: float
) -> tuple[_Suspects, Tensor]:
    for _ in range(_MORE_PASSES):
        clean = second.clone()
        clean.view(-1)[suspects.where] -= suspects.left
        error = _interpolation_error(clean)
        noise = torch.maximum(_deviation(error), rounding)
        hits = _hits_of_error(clean, error, threshold * noise, _SIDELOBE_CROWDED)
        hits.view(-1)[suspects.where[suspects.stands_out]] = True
        hits = _grown(hits) | _hits_of_curvature(clean, rounding, threshold)
        suspects = _examine(second, hits, noise, window, threshold)
    return suspects, noise


def _interpolation_error(second: Tensor) -> Tensor:
    """|sample − cubic through the samples 2 and 3 to its left and right|, ``(B, n)``.

    It jumps over the neighbours that share a kink with the sample. Ends are continued by point reflection,
    which keeps a straight background straight.
    """
    first, last = second[:, :1], second[:, -1:]
    padded = torch.cat([2 * first - second[:, 1:4].flip(1), second, 2 * last - second[:, -4:-1].flip(1)], 1)
    near = padded[:, 1:-5] + padded[:, 5:-1]
    error = torch.sub(second, near, alpha=4 / 6)
    error.add_(padded[:, :-6], alpha=1 / 6).add_(padded[:, 6:], alpha=1 / 6)
    return error.abs_()


def _hits_of_error(second: Tensor, error: Tensor, limit: Tensor, sidelobe: float) -> Tensor:
    """Samples that interpolation misses, sidelobes apart."""
    hit = (error > limit[:, None]).view(-1).nonzero()[:, 0]
    row, place = hit // error.shape[1], hit % error.shape[1]
    strongest = _neighbourhood(error, row, place, (-3, -2, 2, 3))
    keep = error[row, place] >= sidelobe * strongest
    row, place = row[keep], place[keep]
    keep = _sharp(second, row, place)
    hits = torch.zeros_like(error, dtype=torch.bool)
    hits[row[keep], place[keep]] = True
    return hits


def _hits_of_curvature(second: Tensor, rounding: Tensor, threshold: float) -> Tensor:
    """Samples whose own second difference stands out: coarser, and blind to nothing nearby."""
    bend = second.diff().diff().abs_()
    limit = threshold * torch.maximum(_deviation(bend), rounding)
    row, place = (bend > limit[:, None]).nonzero(as_tuple=True)
    keep = _sharp(second, row, place + 1)
    hits = torch.zeros_like(second, dtype=torch.bool)
    hits[row[keep], place[keep] + 1] = True
    hits[:, 0] |= hits[:, 1]
    hits[:, -1] |= hits[:, -2]
    return hits


def _sharp(second: Tensor, row: Tensor, place: Tensor) -> Tensor:
    """Whether differences grow with their order near a sample, as at a kink, or shrink, as on a smooth bend.

    At a kink |δ⁶| is about three times |δ⁴| wherever it lies in its cell; on a curve that the samples resolve
    it is less than |δ⁴|. This needs no scale, so a bend in an otherwise quiet signal is not taken for kinks.
    """
    span = torch.arange(-3, 4, device=second.device)
    near = second[row, (place + span[:, None]).clamp_(0, second.shape[1] - 1)]
    fourth = near.diff(n=2, dim=0)
    return fourth.diff(n=2, dim=0).abs().amax(0) > fourth[1:-1].abs().amax(0)


def _examine(second: Tensor, hits: Tensor, noise: Tensor, window: int, threshold: float) -> _Suspects:
    """Interpolate under all that was hit; then once more, through the samples that this has cleared."""
    for grown in (True, False):
        where = hits.view(-1).nonzero()[:, 0]
        left, deviation = _fit(second, where, noise / _GAIN, window)
        stands_out = left.abs() > threshold * deviation
        if grown:
            hits = torch.zeros_like(hits)
            hits.view(-1)[where[stands_out]] = True
            hits = _grown(hits)
    return _Suspects(where, left, stands_out)


def _fit(second: Tensor, where: Tensor, noise: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """What is left of each suspect above a cubic through its nearest samples that are not suspects.

    Returns it and its standard deviation: by the fit's own residual or the row's, whichever is larger.
    """
    rows, samples = second.shape
    points = window - 1
    row = where // samples
    # Numbered without the suspects, the sample after suspect k has the number where[k] − k, so neighbours are
    # found by counting, however far away they are. Suspects in a run have the same ones: one fit for all.
    number = where - torch.arange(len(where), device=where.device)
    begins = torch.ones_like(where, dtype=torch.bool)
    begins[1:] = (number.diff() != 0) | (row.diff() != 0)
    first = begins.nonzero()[:, 0]
    run = begins.cumsum(0) - 1
    edges = torch.arange(rows + 1, device=where.device) * samples
    edges = edges - torch.searchsorted(where, edges)
    low, high = edges[row[first]], edges[row[first] + 1]
    # Near an end of the row, neighbours come from the other side.
    start = torch.minimum(torch.maximum(number[first] - points // 2, low), high - points).clamp_min_(0)
    chosen = start + torch.arange(points, device=where.device)[:, None]
    place = chosen + _count_up_to(number, chosen)
    place.clamp_max_(second.numel() - 1)
    values, origin = second.reshape(-1), where[first]
    whole, careful, leverage, misfit = _cubic(
        (place - origin).to(second.dtype), values[place], (where - origin[run]).to(second.dtype), run)
    deviation = torch.maximum(misfit[run], noise[row]) * (1 + leverage).sqrt()
    left = _smaller(values[where] - whole, values[where] - careful)
    # A row with hardly an untouched sample has no background to see: nothing is claimed there.
    return torch.where((high - low < points)[run], 0, left), deviation


def _smaller(one: Tensor, other: Tensor) -> Tensor:
    """The one nearer to 0, and 0 where their signs differ: what is claimed of a kink that two readings tell."""
    return torch.where(one.sign() == other.sign(), torch.where(one.abs() < other.abs(), one, other), 0)


def _cubic(x: Tensor, y: Tensor, at: Tensor, run: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least-squares cubics through ``(points, R)``, read at ``at (K,)``, each on the cubic ``run (K,)``.

    Returns ``(K,)`` their values, those of the highest degree whose leverage is at most `_FAR`, and this leverage;
    ``(R,)`` their residual deviations. By orthogonal polynomials (G. Forsythe, J. SIAM 5, 1957).
    """
    before, now = torch.zeros_like(x), torch.ones_like(x)
    before_at, now_at = torch.zeros_like(at), torch.ones_like(at)
    whole, value, leverage = torch.zeros_like(at), torch.zeros_like(at), torch.zeros_like(at)
    far = torch.zeros_like(at, dtype=torch.bool)
    back = norm_before = torch.zeros_like(x[0])
    for degree in range(4):
        norm = (now * now).sum(0)
        share = (y * now).sum(0) / norm
        more = torch.addcdiv(leverage, now_at * now_at, norm[run])
        far |= more > _FAR
        whole = torch.addcmul(whole, share[run], now_at)
        value = torch.where(far, value, whole)
        leverage = torch.where(far, leverage, more)
        y = torch.addcmul(y, share, now, value=-1)
        if degree < 3:
            shift = (x * now * now).sum(0) / norm
            back = norm / norm_before if degree else back
            before, now = now, torch.addcmul((x - shift) * now, back, before, value=-1)
            before_at, now_at = now_at, (at - shift[run]) * now_at - back[run] * before_at
            norm_before = norm
    return whole, value, leverage, ((y * y).sum(0) / (len(x) - 4)).sqrt()


def _signed(suspects: _Suspects, samples: int) -> Parts:
    """Give parts that do not stand out the sign of the larger neighbour that does, and drop the lonely."""
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


def _count_up_to(ascending: Tensor, limits: Tensor) -> Tensor:
    """How many of the first are no larger than each of the second."""
    if ascending.device.type == "cpu":
        # numpy remembers where it was, and is twice as fast.
        return torch.from_numpy(np.searchsorted(ascending.numpy(), limits.numpy(), side="right"))
    return torch.searchsorted(ascending, limits, right=True)


def _neighbourhood(values: Tensor, row: Tensor, place: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """The largest of some neighbours, ends repeated."""
    span = torch.tensor(offsets, device=values.device)
    return values[row, (place + span[:, None]).clamp_(0, values.shape[1] - 1)].amax(0)


def _grown(hits: Tensor) -> Tensor:
    """A mask and its neighbours to the left and right."""
    grown = hits.clone()
    grown[:, 1:] |= hits[:, :-1]
    grown[:, :-1] |= hits[:, 1:]
    return grown


def _deviation(magnitudes: Tensor) -> Tensor:
    """Robust standard deviation of each row of magnitudes: 1.4826 times their (lower) median."""
    return _MAD * lower_median(magnitudes)


def lower_median(magnitudes: Tensor) -> Tensor:
    """The (lower) median of each row, ``(B, n) -> (B,)``."""
    middle = (magnitudes.shape[1] - 1) // 2
    if magnitudes.device.type == "cpu":  # numpy selects four to eight times as fast as torch does
        found = np.partition(magnitudes.numpy(), middle, axis=1)[:, middle]
        return torch.from_numpy(np.ascontiguousarray(found))
    return magnitudes.kthvalue(middle + 1, dim=1).values
