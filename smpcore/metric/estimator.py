"""SMP and kinks of sampled signals: the sum of the magnitudes of the jumps of the slope, from values alone.

Second differences are taken at a lag, their smooth background is subtracted (`smpcore.metric.kink_residual`), and the
lag is chosen so that noise neither hides kinks nor is taken for them. Of kinks that share an interval between samples
only the sum is seen: where kinks are dense, SMP is a lower bound that grows as the spacing shrinks.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.arrays import Array, by_portions, count, lower_median, namespace, repeated, true_places, working
from smpcore.metric.checks import as_tensor, check, largest, needed, scaled
from smpcore.metric.kink_residual import kink_parts
from smpcore.metric.value_jumps import shares_of_jumps, warn_of_jumps

__all__ = ["Kinks", "find_kinks", "smp"]

# A phase of a longer lag has at least this many windows, so that its medians are reliable.
_WINDOWS = 4
# With noise below this share of the largest second difference no longer lag is tried.
_HARMLESS = 1e-3


class Kinks(NamedTuple):
    """Kinks in order of time: ``times (K,)``, from 0 at the first sample, and ``jumps (K,)`` of the slope."""

    times: Tensor | np.ndarray
    jumps: Tensor | np.ndarray


def smp(signal: Tensor | np.ndarray, spacing: float = 1.0, *, lag: int | str = "auto", window: int = 9,
        threshold: float = 5.0) -> Tensor | np.ndarray:
    """Sum of the magnitudes of the jumps of a sampled signal's slope.

    Parameters
    ----------
    signal
        ``(..., N)``, a tensor on any device or an array, evenly spaced in its last dimension. Integers become
        float64. A tensor that requires grad is read without its graph.
    spacing
        Units of t from one sample to the next.
    lag
        Samples. At a lag m > 1 values are averaged over m samples and differences taken m apart, which
        trades resolution (kinks within 3m samples merge) for noise (less by m^1.5). ``"auto"``: 1 where
        noise does not matter, else the power of 2 with the largest reading, for noise hides kinks at a
        shorter lag and merging at a longer one.
    window
        Odd, at least 7. The smooth background under a kink is a cubic through the (window − 1)/2 nearest
        samples on either side that no kink changes, ``lag`` apart.
    threshold
        Robust standard deviations (1.4826 MAD) by which a sample has to miss the background to count.

    Returns
    -------
    Tensor or ndarray
        ``(...)``, of the kind, device and floating type that came in. Signal units per unit of t.

    Raises
    ------
    TypeError
        For a signal that is not real numbers, and parameters of the wrong kind.
    ValueError
        For NaN or infinity (the first index is named), a signal too short for its lag and window, and
        parameters out of range.

    Notes
    -----
    Theory: what kinks add to the second differences sums to their jumps wherever they lie. Scaling, offset,
    reversal and the unit of t act on the result as they do on SMP itself. Our own derivation (notebook 01, "How
    the estimator is built") from the idea of R. Liu et al., arXiv:2103.14731 (2021).

    Kinks that share an interval merge: with c kinks for each sample the share 0.47 c of their sum is lost if jumps are
    normal, 0.67 c if they are equal (notebook 01, "How good is it?"), for c up to about 0.1. From c = 0.2 on kinks may
    be taken for noise, and SMP read as nearly 0. Values rounded more coarsely than their type's digits are a staircase,
    whose steps are read as kinks or hide them: average such a signal first, or give a longer lag. `ValueJumpWarning`
    is given where jumps of value are over 0.2% of the total variation (`jump_share`).
    """
    values, give_back = as_tensor(signal)
    check(values, spacing, lag, window, threshold)
    if not values.numel():
        return give_back(values.sum(-1))
    read = partial(_totals, eps=_eps(values), lag=lag, window=window, threshold=threshold)
    total, unit, _, share = by_portions(read, values.reshape(-1, values.shape[-1]))
    warn_of_jumps(share)
    return give_back((torch.ldexp(total, unit) / float(spacing)).reshape(values.shape[:-1]))


def find_kinks(signal: Tensor | np.ndarray, spacing: float = 1.0, *, lag: int | str = "auto", window: int = 9,
               threshold: float = 5.0) -> Kinks:
    """Place and jump of every kink that the samples resolve.

    Parameters
    ----------
    signal
        ``(N,)``; everything else as in `smp`.

    Returns
    -------
    Kinks
        Kinks with no untouched sample between them, and of one sign, may be listed as one at their centroid;
        the sum of the magnitudes is `smp`'s.

    Raises
    ------
    TypeError, ValueError
        As `smp`, and for anything but one signal.
    """
    values, give_back = as_tensor(signal)
    if values.dim() != 1:
        raise ValueError(f"find_kinks reads one signal (N,), not {tuple(values.shape)}: call it for each")
    check(values, spacing, lag, window, threshold)
    row, eps = working(values[None]), _eps(values)
    total, unit, chosen, share = map(torch.as_tensor, _totals(row, eps, lag, window, threshold))
    warn_of_jumps(share)
    give_back(torch.ldexp(total, unit) / float(spacing))  # refuses a sum that the type does not hold
    (row, size, _), step = scaled(row), int(chosen)
    times, jumps = map(torch.as_tensor, _gathered(*_at_full_rate(row, eps * size, step, window, threshold), step))
    jumps = torch.ldexp(jumps, unit) / float(spacing)
    held = jumps != 0  # smaller ones than float64 holds were found at another scale
    return Kinks(give_back(times[held] * float(spacing)), give_back(jumps[held]))


def _totals(rows: Array, eps: float, lag: int | str, window: int, threshold: float) -> tuple[Array, ...]:
    """SMP times spacing of each row over 2^unit, the unit, the lag it was read at, and the share of jumps in its total
    variation.

    The rows ``(B, N)`` are in float64, and were rounded to ``eps`` of their size before they came in.
    """
    xp = namespace(rows)
    rows, size, unit = scaled(rows)
    rounding = eps * size
    share = shares_of_jumps(xp.diff(rows), rounding)
    best, noise, most = _reading(rows, rounding, 1 if lag == "auto" else lag, window, threshold)
    chosen = xp.full_like(unit, 1 if lag == "auto" else lag)
    if lag != "auto":
        return best, unit, chosen, share
    open_rows = true_places(noise > _HARMLESS * most)
    open_rows = open_rows[_noisy(rows[open_rows])]
    step = 2
    while len(open_rows) and rows.shape[1] >= needed(step, window * _WINDOWS):
        reading, _, _ = _reading(rows[open_rows], rounding[open_rows], step, window, threshold)
        better = reading > best[open_rows]
        best[open_rows] = xp.where(better, reading, best[open_rows])
        chosen[open_rows[better]] = step
        # Two octaves past its best lag a signal's kinks only merge further.
        open_rows = open_rows[step <= 2 * chosen[open_rows].clip(min=8)]
        step *= 2
    return best, unit, chosen, share


def _eps(values: Tensor) -> float:
    """The rounding error of a value of 1 in the type that came in."""
    return torch.finfo(values.dtype).eps


def _reading(rows: Array, rounding: Array, lag: int, window: int, threshold: float) -> tuple[Array, Array, Array]:
    """SMP times spacing, noise and largest second difference of each row at one lag, over its phases."""
    xp = namespace(rows)
    total, noise, most = (xp.zeros_like(rounding) for _ in range(3))
    for phases, second, error in _phases(rows, rounding, lag):
        parts, deviation = kink_parts(second, window, threshold, error)
        total += parts.totals(*second.shape).reshape(-1, len(phases)).sum(1)
        noise += deviation.reshape(-1, len(phases)).sum(1)
        most = xp.maximum(most, xp.amax(largest(second).reshape(-1, len(phases)), 1))
    # Where there is hardly a kink, parts whose sign noise has turned can outweigh the others: SMP is not negative.
    return total.clip(min=0) / lag**2, noise / lag, most


def _phases(rows: Array, rounding: Array, lag: int) -> Iterator[tuple[range, Array, Array]]:
    """Second differences of the averaged samples, ``lag`` apart, and the error in them where values have ``rounding``.

    Every lag-th sample is a signal of its own, so there are ``lag`` of them, in two groups of equal length:
    yields the phases of a group, ``(B · phases, n)`` and ``(B · phases,)``.
    """
    xp = namespace(rows)
    if lag == 1:
        yield range(1), xp.diff(rows, 2), 2 * rounding
        return
    # The row's level is subtracted, so that the running sum keeps its digits under an offset.
    level = (rows[:, :1] + rows[:, -1:]) / 2
    sums = xp.concatenate([0 * level, (rows - level).cumsum(1)], 1)
    rounding = 2 * rounding + torch.finfo(torch.float64).eps * largest(sums) / lag
    averages = (sums[:, lag:] - sums[:, :-lag]) / lag
    length, longer = divmod(averages.shape[1], lag)
    spread = xp.concatenate([averages, xp.zeros_like(averages[:, :lag - longer])], 1)
    spread = spread.reshape(len(rows), -1, lag).swapaxes(1, 2)
    for phases, samples in ((range(longer), length + 1), (range(longer, lag), length)):
        if len(phases):
            group = spread[:, phases.start:phases.stop, :samples].reshape(-1)  # one row behind another in memory
            yield phases, xp.diff(group.reshape(-1, samples), 2), repeated(rounding, len(phases))


def _at_full_rate(row: Array, rounding: Array, lag: int, window: int, threshold: float) -> tuple[Array, Array, Array]:
    """The parts of all phases in order of time: place in samples, share of the jump (times spacing), sign."""
    xp, found = namespace(row), []
    for phases, second, error in _phases(row, rounding, lag):
        parts, _ = kink_parts(second, window, threshold, error)
        phase, step = parts.where // second.shape[1], parts.where % second.shape[1]
        found.append((step * lag + phase + phases.start, parts.jump, parts.sign))
    place, jump, sign = map(xp.concatenate, zip(*found, strict=True))
    order = place.argsort()
    # A second difference belongs to the middle of its three averages.
    return xp.asarray(place[order], dtype=row.dtype) + lag + (lag - 1) / 2, jump[order] / lag**2, sign[order]


def _gathered(place: Array, jump: Array, sign: Array, lag: int) -> tuple[Array, Array]:
    """Neighbouring parts of one sign make a kink at their centroid: times in samples, and jumps."""
    if len(place) == 0:
        return place, jump
    xp, size = namespace(place), abs(jump)
    first = (xp.diff(place) > lag) | (xp.diff(sign) != 0)
    if lag == 1 and len(place) > 2:
        # Two kinks of one sign with a valley between them.
        first[1:] |= (size[1:-1] < size[:-2]) & (size[1:-1] <= size[2:]) & ~first[1:] & ~first[:-1]
    group = xp.concatenate([count(1, place), first.cumsum(0)])
    total, mass = xp.bincount(group, jump), xp.bincount(group, size)
    keep = total != 0
    return xp.bincount(group, size * place)[keep] / mass[keep], total[keep]


def _noisy(rows: Array) -> Array:
    """Whether each row is rough at the scale of its samples, as noise is: differences grow with their order.

    On white noise the median |δ⁶| is 3.6 times the median |δ⁴|, on a smooth curve much smaller.
    """
    xp = namespace(rows)
    fourth = xp.diff(rows, 4)
    return lower_median(abs(xp.diff(fourth, 2))) > 2 * lower_median(abs(fourth))
