"""The maximum over a window of Gaussian signals: pairs that swap the lead, and who leads how often."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from smpcore.propagation.closed_forms import checks
from smpcore.propagation.closed_forms.orthant import SCRAMBLES, STILL, normal_cdf, orthant
from smpcore.propagation.closed_forms.unit_rule import crossings

__all__ = ["LARGEST", "MaxPoolSmp", "Ties", "leads_at", "leads_at_most", "max_pool_estimate", "tie_rates", "ties",
           "with_zero"]

LARGEST = 16
# Sobol points in each scramble: first try, growth, last; and the relative error that is enough.
FIRST, GROWTH, LAST, ENOUGH = 64, 2, 16384, 1e-3


class MaxPoolSmp(NamedTuple):
    """``smp`` ``(...)``, and the ``standard_error`` ``(...)`` of its integration, 0 where it is closed."""

    smp: Tensor
    standard_error: Tensor


def max_pool_estimate(value_cov, slope_cov, duration, mean, smp_in) -> MaxPoolSmp:
    """See `block_rules.max_pool_smp`, whose formula and assumptions these are."""
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
    found = ties(cov, slope_cov, mean, leads)
    total = duration * (found.strength * leads_at(found, points)).sum(-1)
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


class Ties(NamedTuple):
    """Every pair of a window's signals, and what is known of the others when the two are equal.

    Attributes
    ----------
    first, second
        ``(pairs,)`` the two.
    strength, number
        ``(..., pairs)`` Σ|jump of slope| per unit of t over their ties, whoever leads there, and how many ties.
    mean, cov
        ``(..., pairs, k - 2[, k - 2])`` of the others less the first, given the tie, in units of the window's widest
        signal: the two lead where all are below 0.
    """

    first: Tensor
    second: Tensor
    strength: Tensor
    number: Tensor
    mean: Tensor
    cov: Tensor


def tie_rates(cov: Tensor, slope_cov: Tensor, mean: Tensor, i: Tensor, j: Tensor, cross: Tensor | None = None,
              drift: Tensor | None = None):
    """Σ|jump of slope| per unit of t over ties of signals i and j ``(..., pairs)``: E[d'² | d = 0] f_d(0).

    d is their difference. Without ``cross``, Cov(x'_i, x_j), its slope counts as independent of its value; so it is for
    the sum over a stationary window's pairs (see `block_rules.max_pool_smp`). ``drift`` ``(..., k)`` are the means of
    slopes that are not 0. Gives the number of ties and the variance of d as well, 1 where the two never differ.
    """
    apart, turn = _between(cov, i, j), _between(slope_cov, i, j)
    live = apart > STILL * (cov[..., i, i] + cov[..., j, j])
    variance = torch.where(live, apart, 1.0)
    found = crossings(mean[..., j] - mean[..., i], variance, turn, None if cross is None else _between(cross, i, j),
                      None if drift is None else drift[..., i] - drift[..., j])
    return *(torch.where(live, part, 0.0) for part in found), variance


def leads_at_most(cov: Tensor, mean: Tensor, i: Tensor, j: Tensor, leads: Tensor) -> Tensor:
    """An upper bound of P(no other is above signals i and j | tie), ``(..., pairs)``: the least over the others one by
    one."""
    apart = _between(cov, i, j)
    other, first = torch.broadcast_tensors(torch.arange(cov.shape[-1], device=cov.device)[:, None], i)
    across = cov[..., i] - cov[..., j] - (cov[..., i, i] - cov[..., i, j])[..., None, :]
    share = across / torch.where(apart > 0, apart, 1.0)[..., None, :]
    above = mean[..., None] - mean[..., None, i] - share * (mean[..., i] - mean[..., j])[..., None, :]
    var = (_between(cov, other, first) - share * across).clamp(min=0)
    bound = torch.where(var > 0, normal_cdf(-above / torch.where(var > 0, var, 1.0).sqrt()), 1.0 * (above <= 0))
    free = (other == i) | (other == j) | ~leads[..., None]
    return torch.where(free, 1.0, bound).amin(-2)


def _between(moment: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Of the differences of signals i and j."""
    return moment[..., i, i] + moment[..., j, j] - moment[..., i, j] - moment[..., j, i]


def _spread(cov: Tensor) -> Tensor:
    each = torch.arange(cov.shape[-1], device=cov.device)
    return _between(cov, each[:, None], each[None])


def ties(cov: Tensor, slope_cov: Tensor, mean: Tensor, leads: Tensor, cross: Tensor | None = None,
         drift: Tensor | None = None, pairs: int | None = None) -> Ties:
    """All pairs of windows ``(..., k[, k])``: new kinks are Σ strength · P(all others below the two | tie).

    ``leads`` ``(..., k)`` is False for signals that are not there or never lead. Zero takes part as one more signal, of
    variance 0 (`with_zero`). ``cross`` and ``drift`` as in `tie_rates`. With ``pairs`` only so many, the first with the
    second signal first.
    """
    unit = torch.diagonal(cov, dim1=-2, dim2=-1).detach().amax(-1).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)[..., None]
    cov, slope_cov, cross = (None if part is None else part / unit[..., None] ** 2 for part in (cov, slope_cov, cross))
    mean, drift, k = mean / unit, None if drift is None else drift / unit, mean.shape[-1]
    i, j = torch.triu_indices(k, k, 1, device=mean.device)[:, :pairs]
    everyone = torch.arange(k, device=mean.device).expand(len(i), k)
    others = everyone[(everyone != i[:, None]) & (everyone != j[:, None])].reshape(len(i), max(k - 2, 0))
    strength, number, variance = tie_rates(cov, slope_cov, mean, i, j, cross, drift)
    # u_l = x_l − x_i given x_i − x_j = 0, by Gaussian conditioning.
    first, second = i[:, None], j[:, None]
    own, toward = cov[..., i, i][..., None], cov[..., others, first]
    across = toward - cov[..., others, second] - own + cov[..., first, second]
    share = across / variance[..., None]
    given_mean = mean[..., others] - mean[..., first] - share * (mean[..., i] - mean[..., j])[..., None]
    given_cov = (cov[..., others[:, :, None], others[:, None, :]] - toward[..., None] - toward[..., None, :]
                 + own[..., None] - share[..., None] * across[..., None, :])
    # A third signal on the straight line through the two meets them there: the outer two make the kink.
    meets = (torch.diagonal(given_cov, dim1=-2, dim2=-1) <= STILL) & (given_mean.abs() <= STILL**0.5)
    outside = meets & leads[..., others] & ((share > 1e-6) | (share < -1 - 1e-6))
    swap = leads[..., i] & leads[..., j] & ~outside.any(-1)
    given = _ignore(given_mean, given_cov, meets | ~leads[..., others])
    return Ties(i, j, torch.where(swap, strength * unit, 0.0), torch.where(swap, number, 0.0), *given)


def with_zero(mean: Tensor, *moments: Tensor) -> list[Tensor]:
    """A window's means and second moments with zero as its last signal."""
    return [pad(mean, (0, 1)), *(pad(moment, (0, 1, 0, 1)) for moment in moments)]


def leads_at(found: Ties, points: int) -> Tensor:
    """P(the two lead | tie), ``(scrambles, ..., pairs)``; one scramble where it is closed."""
    return _below(found.mean, found.cov, points)


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
    wins = _below(less_mean, less_cov, points)
    return (torch.where(leads, smp_in, 0.0) * wins).sum(-1)


def _ignore(mean: Tensor, cov: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Components that set no condition: fixed at 0, which counts as below."""
    keep = ~(mask[..., :, None] | mask[..., None, :])
    return torch.where(mask, 0.0, mean), torch.where(keep, cov, 0.0)


def _below(mean: Tensor, cov: Tensor, points: int) -> Tensor:
    """P(all components < 0) ``(scrambles, ...)`` of Gaussians ``(..., m[, m])``, all at once."""
    count, size = mean.shape[:-1].numel(), mean.shape[-1]
    result = orthant(mean.reshape(count, size), cov.reshape(count, size, size), points)
    return result.reshape(len(result), *mean.shape[:-1])
