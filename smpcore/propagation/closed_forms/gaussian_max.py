"""The maximum over a window of Gaussian signals: pairs that swap the lead, and who leads how often."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.propagation.closed_forms import checks
from smpcore.propagation.closed_forms.orthant import SCRAMBLES, STILL, orthant

LARGEST = 16
# Sobol points in each scramble: first try, growth, last; and the relative error that is enough.
FIRST, GROWTH, LAST, ENOUGH = 64, 2, 16384, 1e-3


class MaxPoolSmp(NamedTuple):
    """``smp`` ``(...)``, and the ``standard_error`` ``(...)`` of its integration, 0 where it is closed."""

    smp: Tensor
    standard_error: Tensor


def max_pool_estimate(value_cov, slope_cov, duration, mean, smp_in) -> MaxPoolSmp:
    """See `rules.max_pool_smp`, whose formula and assumptions these are."""
    value_cov, slope_cov, duration, mean, smp_in, dtype = _window(
        value_cov, slope_cov, duration, mean, smp_in)
    shape, k = mean.shape[:-1], mean.shape[-1]
    flat = [part.reshape(-1, *part.shape[len(shape):]) for part in (value_cov, slope_cov, mean, smp_in)]
    # In units of its widest signal, every window is compared with the same thresholds.
    unit = torch.diagonal(flat[0], dim1=-2, dim2=-1).detach().amax(-1).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    flat = [part / unit.reshape(-1, *[1] * (part.dim() - 1)) ** power
            for part, power in zip(flat, (2, 2, 1, 1), strict=True)]
    old = bool((smp_in != 0).any())
    closed = k <= (3 if old else 4)
    points = FIRST
    smp, error = _totals(*flat, duration, old, points)
    while not closed and points < LAST:
        rough = error > ENOUGH * smp.detach()
        if not bool(rough.any()):
            break
        points *= GROWTH
        where = rough.nonzero()[:, 0]
        better, its_error = _totals(*(part[where] for part in flat), duration, old, points)
        smp, error = smp.index_copy(0, where, better), error.index_copy(0, where, its_error)
    return MaxPoolSmp(*((part * unit).reshape(shape).to(dtype) for part in (smp, error)))


def _window(value_cov, slope_cov, duration, mean, smp_in):
    """The arguments checked and broadcast to one shape of windows."""
    (value_cov, slope_cov, duration, smp_in, mean), dtype = checks.tensors(
        value_cov=value_cov, slope_cov=slope_cov, duration=duration, smp_in=smp_in,
        mean=0.0 if mean is None else mean)
    checks.scalar(duration, "duration")
    checks.not_negative(duration, "duration")
    checks.not_negative(smp_in, "smp_in")
    value_cov = checks.covariance(value_cov, "value_cov", dtype)
    slope_cov = checks.covariance(slope_cov, "slope_cov", dtype)
    k = value_cov.shape[-1]
    if not 1 <= k <= LARGEST:
        raise ValueError(f"a window of {k} signals: 1 to {LARGEST} are supported")
    rows = {"value_cov": value_cov[..., 0], "slope_cov": slope_cov[..., 0], "mean": mean, "smp_in": smp_in}
    shape = checks.broadcast(**rows)
    if shape[-1] != k:
        raise ValueError(f"sizes do not match: windows of {k} signals, mean or smp_in of {shape[-1]}")
    full = (*shape, k)
    return (value_cov.expand(full), slope_cov.expand(full), duration, mean.expand(shape),
            smp_in.expand(shape), dtype)


def _totals(cov: Tensor, slope_cov: Tensor, mean: Tensor, smp_in: Tensor, duration: Tensor, old: bool,
            points: int) -> tuple[Tensor, Tensor]:
    """SMP of each window ``(n,)`` and its standard error, from that many points a scramble."""
    leads = _may_lead(cov, slope_cov, mean)
    total = duration * _swaps(cov, slope_cov, mean, leads, points)
    if old:
        total = total + _passed_on(cov, mean, smp_in, leads, points)
    smp = total.mean(0)
    if len(total) == 1:
        return smp, torch.zeros_like(smp)
    return smp, total.detach().std(0) / math.sqrt(SCRAMBLES)


def _may_lead(cov: Tensor, slope_cov: Tensor, mean: Tensor) -> Tensor:
    """``(n, k)``: False for a signal that always runs below another, or together with one before it."""
    with torch.no_grad():
        apart, slopes_apart = _spread(cov), _spread(slope_cov)
        together = apart <= STILL
        size = torch.diagonal(slope_cov, dim1=-2, dim2=-1).amax(-1)[:, None, None]
        torn = together & (slopes_apart > 1e-4 * size)
        if bool(torn.any()):
            window, i, j = torn.nonzero()[0].tolist()
            raise ValueError(
                f"signals {i} and {j} of window {window} never differ in value, and yet in slope (variance "
                f"{slopes_apart[window, i, j].item():.3g}): value_cov and slope_cov belong to different "
                "signals")
        ahead = mean[:, :, None] - mean[:, None, :]  # of i against l
        slack = STILL**0.5
        earlier = torch.ones_like(together).triu(1)
        beaten = together & ((ahead > slack) | ((ahead.abs() <= slack) & earlier))
        return ~beaten.any(1)


def _spread(cov: Tensor) -> Tensor:
    variance = torch.diagonal(cov, dim1=-2, dim2=-1)
    return variance[:, :, None] + variance[:, None, :] - 2 * cov


def _swaps(cov: Tensor, slope_cov: Tensor, mean: Tensor, leads: Tensor,
           points: int) -> Tensor:
    """New kinks per unit of t: Σ_{i<j} Var(x_i' − x_j') f(0) P(all others < x_i | x_i = x_j)."""
    n, k = mean.shape
    if k == 1:
        return mean.new_zeros(1, n)
    i, j = torch.triu_indices(k, k, 1, device=mean.device)
    pairs = len(i)
    everyone = torch.arange(k, device=mean.device).expand(pairs, k)
    others = everyone[(everyone != i[:, None]) & (everyone != j[:, None])].reshape(pairs, k - 2)
    apart = _spread(cov)[:, i, j]
    swap = leads[:, i] & leads[:, j] & (apart > STILL)
    variance = torch.where(swap, apart, 1.0)
    offset = mean[:, i] - mean[:, j]
    density = torch.exp(-(offset**2) / (2 * variance)) / (2 * math.pi * variance).sqrt()
    # u_l = x_l − x_i given x_i − x_j = 0, by Gaussian conditioning.
    first, second = i[:, None], j[:, None]
    own = cov[:, i, i][..., None]
    across = cov[:, others, first] - cov[:, others, second] - own + cov[:, first, second]
    share = across / variance[..., None]
    given_mean = mean[:, others] - mean[:, first] - share * offset[..., None]
    given_cov = (cov[:, others[:, :, None], others[:, None, :]] - cov[:, others, first][..., None]
                 - cov[:, others, first][:, :, None, :] + own[..., None]
                 - share[..., None] * across[:, :, None, :])
    # A third signal on the straight line through the two meets them there: the outer two make the kink.
    limit = STILL
    meets = (torch.diagonal(given_cov, dim1=-2, dim2=-1) <= limit) & (given_mean.abs() <= limit**0.5)
    outside = meets & leads[:, others] & ((share > 1e-6) | (share < -1 - 1e-6))
    given_mean, given_cov = _ignore(given_mean, given_cov, meets | ~leads[:, others])
    given_mean = torch.where(outside, 1.0, given_mean)
    below = _grouped(given_mean, given_cov, points)
    strength = torch.where(swap, _spread(slope_cov)[:, i, j] * density, 0.0)
    return (strength * below).sum(-1)


def _passed_on(cov: Tensor, mean: Tensor, smp_in: Tensor, leads: Tensor,
               points: int) -> Tensor:
    """Old kinks: Σ_i P(i wins) SMP(x_i)."""
    k = mean.shape[-1]
    i = torch.arange(k, device=mean.device)
    everyone = i.expand(k, k)
    others = everyone[everyone != i[:, None]].reshape(k, k - 1)
    own = cov[:, i, i][..., None]
    toward = cov[:, others, i[:, None]]
    less_mean = mean[:, others] - mean[:, i[:, None]]
    less_cov = (cov[:, others[:, :, None], others[:, None, :]] - toward[..., None] - toward[:, :, None, :]
                + own[..., None])
    less_mean, less_cov = _ignore(less_mean, less_cov, ~leads[:, others])
    wins = _grouped(less_mean, less_cov, points)
    return (torch.where(leads, smp_in, 0.0) * wins).sum(-1)


def _ignore(mean: Tensor, cov: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Components that set no condition: fixed, and below 0."""
    keep = ~(mask[..., :, None] | mask[..., None, :])
    return torch.where(mask, -1.0, mean), torch.where(keep, cov, 0.0)


def _grouped(mean: Tensor, cov: Tensor, points: int) -> Tensor:
    """Orthants of all pairs of all windows at once: ``(scrambles, n, pairs)``."""
    n, pairs, size = mean.shape
    result = orthant(mean.reshape(n * pairs, size), cov.reshape(n * pairs, size, size), points)
    return result.reshape(-1, n, pairs)
