"""The smooth background under suspected samples: a cubic through the nearest samples that no kink touches.

Suspected samples in a run have the same neighbours, so there is one fit for each run. Where those neighbours are
contiguous, the weights of the fit depend on the length of the run alone: they are computed once for each length.
"""

import functools

import numpy as np
import torch
from torch import Tensor

__all__ = ["above_background", "taken", "true_places"]

# Largest leverage of a fit: where the cubic has more (over twice a sample's deviation), a lower degree is used too.
_FAR = 4.0
# From this many runs of one length on, one fit with shared weights is quicker than a fit for each run.
_MANY = 128


def above_background(
    second: Tensor, where: Tensor, noise: Tensor, window: int, threshold: float
) -> tuple[Tensor, Tensor]:
    """Each suspected sample minus a cubic through the nearest samples that are not suspected.

    Parameters
    ----------
    second
        ``(B, n)``, contiguous.
    where
        ``(K,)`` the suspects' flat indices, ascending.
    noise
        ``(B,)`` the standard deviation that a sample has at least.
    window
        Odd: (window − 1)/2 neighbours on either side.
    threshold
        Deviations that a part has to exceed to stand out: by the fit's own residual or the row's noise, whichever
        is larger.

    Returns
    -------
    left
        ``(K,)`` the difference; of two fits, the smaller one.
    stands_out
        ``(K,)`` whether it exceeds the threshold, and a fit of degree 4 would not remove two thirds of it: across a
        long run a cubic may miss a bend by more than its residuals beside the run show.
    """
    if second.device.type != "cpu" or not len(where):
        # On a GPU one long call is quicker than a short one for each length.
        return _between(second, where, noise, window, threshold, slice(None))
    samples, half = second.shape[1], (window - 1) // 2
    row = where // samples
    first = true_places(_begins(where, row))
    length = torch.diff(first, append=torch.tensor([len(where)]))
    begin, edge = taken(where, first), taken(row, first) * samples
    end = begin + length
    gap = begin[1:] - end[:-1]
    beside = (begin - edge >= half) & (edge + samples - end >= half)
    beside[1:] &= gap >= half
    beside[:-1] &= gap >= half
    # Runs of rare lengths are fitted together below.
    counts = torch.bincount(taken(length, true_places(beside)), minlength=int(length.max()) + 1)
    beside &= taken(counts, length) >= _MANY
    values = second.view(-1)
    left, stands_out = torch.empty_like(where, dtype=second.dtype), torch.empty_like(where, dtype=torch.bool)
    for size in true_places(counts >= _MANY).tolist():
        chosen = true_places(beside & (length == size))
        whole, careful, further, residual, leverage = _weights(size, half, second.dtype)
        span = torch.arange(-half, size + half)[:, None]
        near = taken(values, taken(begin, chosen) + span)
        around = torch.cat([near[:half], near[-half:]])
        here = near[half:-half]
        misfit = torch.linalg.vector_norm(residual @ around, dim=0) / (2 * half - 4) ** 0.5
        place = taken(first, chosen) + torch.arange(size)[:, None]
        parts = _smaller(here - whole @ around, here - careful @ around)
        limit = threshold * torch.maximum(misfit, taken(noise, taken(row, taken(first, chosen)))) * leverage[:, None]
        left[place], stands_out[place] = parts, _clear(parts, limit, further @ around)
    others = torch.repeat_interleave(~beside, length)
    if others.any():
        others = true_places(others)
        left[others], stands_out[others] = _between(second, where, noise, window, threshold, others)
    return left, stands_out


@functools.lru_cache(maxsize=256)
def _weights(size: int, half: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """For a run of ``size`` between contiguous neighbours: weights ``(size, 2 half)`` of the two readings and of
    what a further degree adds, ``(2 half, 2 half)`` of the residual, and ``(size,)`` deviations for a sample's
    deviation of 1."""
    points = 2 * half
    x = torch.cat([torch.arange(-half, 0), torch.arange(size, size + half)]).to(dtype)
    places = torch.cat([torch.arange(size, dtype=dtype), x])
    # A fit to each unit vector gives one column of the weights.
    whole, careful, further, leverage, _ = _cubic(
        x[:, None].expand(points, points), torch.eye(points, dtype=dtype), places.repeat(points),
        torch.arange(points).repeat_interleave(len(places)))
    whole, careful, further = (part.view(points, -1).T.contiguous() for part in (whole, careful, further))
    return (whole[:size], careful[:size], further[:size], torch.eye(points, dtype=dtype) - whole[size:],
            (1 + leverage[:size]).sqrt())


def _begins(where: Tensor, row: Tensor) -> Tensor:
    """Which suspects are the first of a run."""
    begins = torch.ones_like(where, dtype=torch.bool)
    begins[1:] = (where.diff() != 1) | (row.diff() != 0)
    return begins


def _between(
    second: Tensor, where: Tensor, noise: Tensor, window: int, threshold: float, chosen: Tensor | slice
) -> tuple[Tensor, Tensor]:
    """`above_background` of chosen suspects (whole runs), wherever their neighbours are."""
    rows, samples = second.shape
    points = window - 1
    # Numbered without the suspects, the sample after suspect k has the number where[k] − k, so neighbours are
    # found by counting, however far away they are.
    number = where - torch.arange(len(where), device=where.device)
    edges = torch.arange(rows + 1, device=where.device) * samples
    edges = edges - torch.searchsorted(where, edges)
    mine, own = where[chosen], number[chosen]
    row = mine // samples
    begins = _begins(mine, row)
    first = true_places(begins)
    run = begins.cumsum(0) - 1
    of_run = taken(row, first)
    low, high = taken(edges, of_run), taken(edges, of_run + 1)
    # Near an end of the row, neighbours come from the other side.
    start = torch.minimum(torch.maximum(taken(own, first) - points // 2, low), high - points).clamp_min_(0)
    near = start + torch.arange(points, device=where.device)[:, None]
    place = near + _count_up_to(number, near)
    place.clamp_max_(second.numel() - 1)
    values, origin = second.reshape(-1), taken(mine, first)
    whole, careful, further, leverage, misfit = _cubic(
        (place - origin).to(second.dtype), taken(values, place), (mine - taken(origin, run)).to(second.dtype), run)
    limit = threshold * torch.maximum(taken(misfit, run), taken(noise, row)) * (1 + leverage).sqrt()
    here = taken(values, mine)
    # Without enough samples that are not suspected there is no fit, and no kink is reported.
    left = torch.where(taken(high - low < points, run), 0, _smaller(here - whole, here - careful))
    return left, _clear(left, limit, further)


def _clear(left: Tensor, limit: Tensor, further: Tensor) -> Tensor:
    return (left.abs() > limit) & (left.abs() > 1.5 * further.abs())


def _smaller(one: Tensor, other: Tensor) -> Tensor:
    """Of two readings of a kink the one nearer to 0, and 0 where their signs differ."""
    return torch.where(one.sign() == other.sign(), torch.where(one.abs() < other.abs(), one, other), 0)


def _cubic(x: Tensor, y: Tensor, at: Tensor, run: Tensor) -> tuple[Tensor, ...]:
    """Least-squares cubics through ``(points, R)``, read at ``at (K,)``, each on the cubic ``run (K,)``.

    Returns ``(K,)`` their values, those of the highest degree whose leverage is at most `_FAR`, what degree 4 would
    add, and this leverage; ``(R,)`` the cubics' residual deviations. By orthogonal polynomials (G. Forsythe, J. SIAM
    5, 1957).
    """
    before, now = torch.zeros_like(x), torch.ones_like(x)
    before_at, now_at = torch.zeros_like(at), torch.ones_like(at)
    whole, value, leverage = torch.zeros_like(at), torch.zeros_like(at), torch.zeros_like(at)
    far = torch.zeros_like(at, dtype=torch.bool)
    back = norm_before = torch.zeros_like(x[0])
    for degree in range(4):
        norm = (now * now).sum(0)
        share = (y * now).sum(0) / norm
        more = torch.addcdiv(leverage, now_at * now_at, taken(norm, run))
        far |= more > _FAR
        whole = torch.addcmul(whole, taken(share, run), now_at)
        value = torch.where(far, value, whole)
        leverage = torch.where(far, leverage, more)
        y = torch.addcmul(y, share, now, value=-1)
        shift = (x * now * now).sum(0) / norm
        back = norm / norm_before if degree else back
        before, now = now, torch.addcmul((x - shift) * now, back, before, value=-1)
        before_at, now_at = now_at, (at - taken(shift, run)) * now_at - taken(back, run) * before_at
        norm_before = norm
    further = taken((y * now).sum(0) / (now * now).sum(0), run) * now_at
    return whole, value, further, leverage, ((y * y).sum(0) / (len(x) - 4)).sqrt()


def _count_up_to(ascending: Tensor, limits: Tensor) -> Tensor:
    """How many of the first are no larger than each of the second."""
    if ascending.device.type == "cpu":
        # numpy uses that the limits are nearly sorted, and is twice as fast.
        return torch.from_numpy(np.searchsorted(ascending.numpy(), limits.numpy(), side="right"))
    return torch.searchsorted(ascending, limits, right=True)


def taken(values: Tensor, where: Tensor) -> Tensor:
    """``values[where]`` for a flat tensor, in a quarter of the time that indexing takes on a CPU."""
    return values.index_select(0, where.reshape(-1)).view(where.shape)


def true_places(mask: Tensor) -> Tensor:
    """Flat indices at which a mask is true, ascending."""
    if mask.device.type == "cpu":  # several times as fast as torch's
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero()[:, 0]


