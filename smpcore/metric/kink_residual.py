"""Second differences minus their smooth background: the part that kinks added to them.

A kink with jump J, a fraction α into a cell, adds (1−α)J and αJ to two neighbouring second differences: the
sum of what it adds is J wherever it lies. To read that sum, the smooth background under it has to be known:
it is interpolated through the nearest samples that no kink changes, one fit for each run of suspected samples.
"""

import math
from typing import NamedTuple

from smpcore.metric.arrays import Array, correlate, count, lower_median, namespace, true_places
from smpcore.metric.background_fit import Background, above_background

__all__ = ["Parts", "kink_parts", "robust_deviation"]

# A robust standard deviation is this many median absolute deviations.
_MAD = 1.4826
# A sample minus the cubic through the samples 2 and 3 to its left and right. The next neighbours are left out, because
# they may share a kink with the sample.
_INTERPOLATION = [1 / 6, -4 / 6, 0.0, 1.0, 0.0, -4 / 6, 1 / 6]
# What white noise of deviation 1 leaves of itself there.
_GAIN = math.hypot(*_INTERPOLATION)
# A kink also changes the interpolation two and three samples away, by 2/3 and by 1/6 of itself. Where kinks are few,
# the fit decides whether the larger of these errors is a second kink. Where they are many, masking both would leave too
# few samples for a background; a second kink is found after the first has been subtracted.
_SIDELOBE, _SIDELOBE_CROWDED = 0.3, 0.67
# Where kinks touch fewer of a row's samples than this, they cannot have moved its medians by more than 3%.
_FEW = 1 / 50
_MORE_PASSES = 3


class Parts(NamedTuple):
    """The samples that kinks changed, in order: ``where``, flat index into (B, n); ``jump``, what kinks added
    there; ``sign`` ±1, that of the kink it belongs to."""

    where: Array
    jump: Array
    sign: Array

    def totals(self, rows: int, samples: int) -> Array:
        """Sum of magnitudes of each row, ``(rows,)``."""
        # A part that does not stand out has its neighbour's sign, so that noise in it averages out.
        return namespace(self.jump).bincount(self.where // samples, self.jump * self.sign, rows)


def kink_parts(second: Array, window: int, threshold: float, rounding: Array) -> tuple[Parts, Array]:
    """Split second differences into smooth background and kinks.

    Parameters
    ----------
    second
        ``(B, n)``, contiguous, n at least ``window + 2``; numpy's, or a tensor.
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
    samples = second.shape[1]
    noise, missed, wide = _missed(second, threshold, rounding, _SIDELOBE)
    hits = _grown(_sharp(wide, missed))
    found = _examined(second, hits, noise, window, threshold)
    standing = _standing(found, noise, threshold)
    # Rows with many kinks, or with too few samples left for a background. Their kinks raised these rows' medians, so
    # that others were missed: subtract those found and test again.
    crowded = true_places((found.suspected.sum(1) > _FEW * samples)
                          | (samples - hits.sum(1) < max(window - 1, samples / 2)))
    for _ in range(_MORE_PASSES):
        if not len(crowded):
            break
        rows = crowded if len(crowded) < len(second) else slice(None)  # a view where it is all of them
        before, stood = Background(*(column[rows] for column in found)), standing[rows]
        noise[rows], after = _again(second[rows], rounding[rows], before, stood, window, threshold)
        stands = _standing(after, noise[rows], threshold)
        # A pass depends on these two alone: a row in which neither changed gives the same result as before.
        moved = ((after.left != before.left) | (stands != stood)).any(1)
        for column, part in zip((*found, standing), (*after, stands), strict=True):
            column[rows] = part
        crowded = crowded[moved]
    return _signed(found, standing), noise


def _again(second: Array, rounding: Array, before: Background, stood: Array, window: int,
           threshold: float) -> tuple[Array, Background]:
    """Noise and background of rows after the kinks found so far have been subtracted."""
    clean = second - before.left
    noise, missed, wide = _missed(clean, threshold, rounding, _SIDELOBE_CROWDED)
    # A coarser test, which uses neighbours alone: samples whose own second difference stands out.
    bend = abs(correlate(clean.reshape(-1), [1.0, -2.0, 1.0]).reshape(clean.shape))
    bent = bend > threshold * namespace(clean).maximum(robust_deviation(bend[:, 1:-1]), rounding)[:, None]
    sharp = _sharp(wide, missed | bent)
    bent &= sharp
    # The ends have no second difference: each is taken with its neighbour.
    bent[:, 0], bent[:, -1] = bent[:, 1], bent[:, -2]
    return noise, _examined(second, _grown(missed & sharp | stood) | bent, noise, window, threshold, before)


def _examined(second: Array, hits: Array, noise: Array, window: int, threshold: float,
              known: Background | None = None) -> Background:
    """Fit the background under all samples that were hit; then again without those that did not stand out."""
    under_hits = above_background(second, hits, window, threshold, known)
    beside_kinks = _grown(_standing(under_hits, noise, threshold))
    return above_background(second, beside_kinks, window, threshold, known and under_hits)


def _standing(found: Background, noise: Array, threshold: float) -> Array:
    """Whether each sample stands out of its row's noise ``(B,)``."""
    return found.strength > (threshold / _GAIN * noise)[:, None]


def _missed(second: Array, threshold: float, rounding: Array, sidelobe: float) -> tuple[Array, Array, Array]:
    """Noise ``(B,)`` of each row; the samples ``(B, n)`` that interpolation misses, sidelobes apart; and the rows
    ``(B, n + 6)`` with their ends repeated."""
    xp, first, last = namespace(second), second[:, :1], second[:, -1:]
    # Ends are continued by point reflection, which keeps a straight background straight.
    wide = xp.concatenate([2 * first - xp.flip(second[:, 1:4], (1,)), second,
                           2 * last - xp.flip(second[:, -4:-1], (1,))], 1)
    error = abs(correlate(wide.reshape(-1), _INTERPOLATION)).reshape(wide.shape)
    for rows in (wide, error):
        rows[:, :3], rows[:, -3:] = rows[:, 3:4], rows[:, -4:-3]
    noise = xp.maximum(robust_deviation(error[:, 3:-3]), rounding)
    missed = error[:, 3:-3] > (threshold * noise)[:, None]
    where = true_places(missed)
    near = _near(error, where)
    strongest = xp.maximum(xp.maximum(near[0], near[1]), xp.maximum(near[5], near[6]))
    missed.reshape(-1)[where] = near[3] >= sidelobe * strongest
    return noise, missed, wide


def _sharp(wide: Array, where: Array) -> Array:
    """Of some samples those near which differences grow with their order, as at a kink; on a smooth bend they shrink.

    At a kink |δ⁶| is about three times |δ⁴| wherever it lies in its cell; on a curve that the samples resolve
    it is less than |δ⁴|. The comparison needs no scale, so that a bend in a flat signal is not taken for kinks.
    """
    xp, places = namespace(wide), true_places(where)
    near = _near(wide, places)
    fourth = near[:-2] - 2 * near[1:-1] + near[2:]
    sixth = fourth[:-2] - 2 * fourth[1:-1] + fourth[2:]
    sharp = xp.zeros_like(where)
    sharp.reshape(-1)[places] = xp.amax(abs(sixth), 0) > xp.amax(abs(fourth[1:-1]), 0)
    return sharp


def _near(wide: Array, where: Array) -> Array:
    """Values ``(7, K)`` from three samples before to three after each flat index into ``(B, n)``, of rows
    ``(B, n + 6)``."""
    return wide.take(where + 6 * (where // (wide.shape[1] - 6)) + count(7, where)[:, None])


def _grown(mask: Array) -> Array:
    """A mask and the neighbours to the left and right within a row."""
    grown = mask | mask
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _signed(found: Background, standing: Array) -> Parts:
    """Give parts that do not stand out the sign of the larger neighbour that does; drop those without one."""
    xp, where = namespace(standing), true_places(found.suspected)
    left = found.left.take(where)
    own, joined = left * standing.take(where), xp.zeros_like(left)
    joined[1:] = (where[1:] - where[:-1] == 1) & (where[1:] % standing.shape[1] > 0)
    before, after = xp.zeros_like(left), xp.zeros_like(left)
    before[1:], after[:-1] = own[:-1] * joined[1:], own[1:] * joined[1:]
    sign = xp.sign(xp.where(own != 0, own, xp.where(abs(before) >= abs(after), before, after)))
    keep = sign != 0
    return Parts(where[keep], left[keep], sign[keep])


def robust_deviation(magnitudes: Array) -> Array:
    """Robust standard deviation of each row of magnitudes: 1.4826 times their (lower) median."""
    return _MAD * lower_median(magnitudes)
