"""The smooth background under suspected samples: a cubic through the nearest samples that no kink changes.

Suspected samples in a run have the same neighbours, so there is one fit for each run; the fits of all runs are made
together.
"""

from typing import NamedTuple

from smpcore.metric.arrays import Array, count, namespace, repeated, true_places

__all__ = ["Background", "above_background"]

# Largest leverage of a fit: where the cubic's is larger (its error over twice a sample's), a lower degree is tried too.
_FAR = 4.0


class Background(NamedTuple):
    """What suspected samples have above their background, ``(B, n)`` each.

    ``suspected``; ``left``, the difference, of two fits the smaller one; ``strength``, its magnitude in units of the
    sample's own error, which a kink's exceeds threshold times the row's noise. Both are 0 for all other samples, and
    the strength also where the fit itself rules a kink out: its residuals are as large, or a fit of degree 4 would
    remove two thirds of the difference (across a long run a cubic may miss a bend by more than its residuals beside
    the run show).
    """

    suspected: Array
    left: Array
    strength: Array


def above_background(second: Array, suspected: Array, window: int, threshold: float,
                     known: Background | None = None) -> Background:
    """Each suspected sample minus a cubic through the nearest samples that are not suspected.

    Parameters
    ----------
    second
        ``(B, n)``, contiguous.
    suspected
        ``(B, n)``, true or false.
    window
        Odd: (window − 1)/2 neighbours on either side.
    threshold
        Times the fit's own residual deviation that a difference has to exceed.
    known
        The background under other suspects of the same rows: where a run and its neighbours are as they were there,
        its fit is taken over.
    """
    xp, (rows, samples), points = namespace(second), second.shape, window - 1
    free = true_places(~suspected)
    edges = xp.searchsorted(free, count(rows + 1, free) * samples)
    scarce = edges[1:] - edges[:-1] < points
    if scarce.any():  # Without enough samples that are not suspected there is no fit, and no kink is reported.
        found = above_background(second, suspected & ~scarce[:, None], window, threshold, known)
        return found._replace(suspected=suspected)
    first = true_places(xp.concatenate([suspected[:, :1], suspected[:, 1:] & ~suspected[:, :-1]], 1))
    last = true_places(xp.concatenate([suspected[:, :-1] & ~suspected[:, 1:], suspected[:, -1:]], 1))
    row, length = first // samples, last - first + 1
    # Samples that are not suspected have numbers, so neighbours are found by counting, however far away they are. Near
    # an end of the row they come from the other side.
    number = last + 1 - length.cumsum(0)
    low, high = edges.take(row), edges.take(row + 1)
    start = xp.maximum(xp.minimum(number - points // 2, high - points), low)
    if known is None:
        left, strength = xp.zeros_like(second), xp.zeros_like(second)
    else:
        left, strength = known.left * suspected, known.strength * suspected
        changed = true_places(suspected != known.suspected)
        begin = xp.where(start == low, row * samples, free.take(start))
        end = xp.where(start + points == high, (row + 1) * samples, free.take(start + points - 1))
        fresh = xp.searchsorted(changed, begin) < xp.searchsorted(changed, end, side="right")
        fresh |= (samples - known.suspected.sum(1) < points).take(row)  # there was no fit
        first, length, start = first[fresh], length[fresh], start[fresh]
    near = free.take(start + count(points, free)[:, None])
    run = repeated(count(len(first), first), length)
    at = count(len(run), run) - (length.cumsum(0) - length).take(run)
    where = first.take(run) + at
    whole, careful, further, leverage, misfit = _cubic(
        xp.asarray(near - first, dtype=second.dtype), second.take(near), xp.asarray(at, dtype=second.dtype), run)
    here = second.take(where)
    difference = _smaller(here - whole, here - careful)
    size = abs(difference)
    relative = size / xp.sqrt(1 + leverage)
    stands_out = (relative > threshold * misfit.take(run)) & (size > 1.5 * abs(further))
    left.reshape(-1)[where], strength.reshape(-1)[where] = difference, relative * stands_out
    return Background(suspected, left, strength)


def _smaller(one: Array, other: Array) -> Array:
    """Of two readings of a kink the one nearer to 0, and 0 where their signs differ."""
    xp = namespace(one)
    return xp.minimum(xp.maximum(one, other.clip(max=0)), other.clip(min=0))


def _cubic(x: Array, y: Array, at: Array, run: Array) -> tuple[Array, ...]:
    """Least-squares cubics through ``(points, R)``, read at ``at (K,)``, each on the cubic ``run (K,)``.

    Returns ``(K,)`` their values, those of the highest degree whose leverage is at most `_FAR`, what degree 4 would
    add, and this leverage; ``(R,)`` the cubics' residual deviations. By orthogonal polynomials (G. Forsythe, J. SIAM
    5, 1957).
    """
    xp, points = namespace(x), len(x)
    shift, share = x.sum(0) / points, y.sum(0) / points
    before, now, y = 1.0, x - shift, y - share
    before_at, now_at = 1.0, at - shift.take(run)
    whole = value = share.take(run)
    total = leverage = xp.full_like(at, 1 / points)
    norm_before = points
    for _ in range(3):
        square = now * now
        norm = square.sum(0)
        share, shift, back = (y * now).sum(0) / norm, (x * square).sum(0) / norm, norm / norm_before
        whole, total = whole + share.take(run) * now_at, total + now_at * now_at / norm.take(run)
        value, leverage = xp.where(total > _FAR, value, whole), xp.where(total > _FAR, leverage, total)
        y = y - share * now
        before, now = now, (x - shift) * now - back * before
        before_at, now_at = now_at, (at - shift.take(run)) * now_at - back.take(run) * before_at
        norm_before = norm
    further = ((y * now).sum(0) / (now * now).sum(0)).take(run) * now_at
    return whole, value, further, leverage, xp.sqrt((y * y).sum(0) / (points - 4))
