"""SMP and kinks of sampled signals: the sum of the magnitudes of the jumps of the slope, from values alone.

Second differences are taken at a lag, their smooth background is subtracted (`smpcore.metric.kink_residual`), and the
lag is chosen so that noise neither hides kinks nor is taken for them. Of kinks that share an interval between samples
only the sum is seen: where kinks are dense, SMP is a lower bound that grows as the spacing shrinks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.checks import as_tensor, check, largest, needed, scaled
from smpcore.metric.kink_residual import kink_parts, lower_median
from smpcore.metric.value_jumps import shares_of_jumps, warn_of_jumps

__all__ = ["Kinks", "find_kinks", "smp"]

# Samples worked on at a time: this bounds the memory (about 100 bytes each) and keeps a GPU busy.
_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 24}
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
    rows = values.reshape(-1, values.shape[-1])
    read = [_totals(part, lag, window, threshold) for part in _portions(rows)]
    total, _, share = map(torch.cat, zip(*read, strict=True)) if read else 3 * (rows.new_zeros(0, dtype=torch.float64),)
    warn_of_jumps(share)
    return give_back((total / float(spacing)).reshape(values.shape[:-1]))


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
    total, chosen, share = _totals(values[None], lag, window, threshold)
    warn_of_jumps(share)
    give_back(total / float(spacing))  # refuses a sum that the type does not hold
    step = int(chosen[0])
    row, unit = scaled(values[None])
    place, jump, sign = _at_full_rate(row, _eps(values), step, window, threshold)
    jump = torch.ldexp(jump, unit)
    times, jumps = _gathered(place, jump, sign, step)
    return Kinks(give_back(times * float(spacing)), give_back(jumps / float(spacing)))


def _totals(rows: Tensor, lag: int | str, window: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """SMP times spacing of each row, the lag it was read at, and the share of jumps in its total variation."""
    eps = _eps(rows)
    rows, unit = scaled(rows)
    share = shares_of_jumps(rows, eps)
    best, noise, most = _reading(rows, eps, 1 if lag == "auto" else lag, window, threshold)
    chosen = torch.full_like(best, 1 if lag == "auto" else lag, dtype=torch.int64)
    if lag != "auto":
        return torch.ldexp(best, unit), chosen, share
    open_rows = (noise > _HARMLESS * most).nonzero()[:, 0]
    open_rows = open_rows[_noisy(rows[open_rows])]
    step = 2
    while len(open_rows) and rows.shape[1] >= needed(step, window * _WINDOWS):
        reading, _, _ = _reading(rows[open_rows], eps, step, window, threshold)
        better = reading > best[open_rows]
        best[open_rows] = torch.where(better, reading, best[open_rows])
        chosen[open_rows] = torch.where(better, step, chosen[open_rows])
        # Two octaves past its best lag a signal's kinks only merge further.
        open_rows = open_rows[step <= 2 * chosen[open_rows].clamp_min(8)]
        step *= 2
    return torch.ldexp(best, unit), chosen, share


def _eps(values: Tensor) -> float:
    """The rounding error of a value of 1 in the type that came in."""
    return torch.finfo(values.dtype).eps


def _reading(rows: Tensor, eps: float, lag: int, window: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """SMP times spacing, noise and largest second difference of each row at one lag, over its phases."""
    total, noise, most = (torch.zeros(len(rows), dtype=rows.dtype, device=rows.device) for _ in range(3))
    for phases, second, rounding in _phases(rows, eps, lag):
        parts, deviation = kink_parts(second, window, threshold, rounding)
        total += parts.totals(*second.shape).view(-1, len(phases)).sum(1)
        noise += deviation.view(-1, len(phases)).sum(1)
        most = torch.maximum(most, largest(second).view(-1, len(phases)).amax(1))
    # Where there is hardly a kink, parts whose sign noise has turned can outweigh the others: SMP is not negative.
    return total.clamp_min(0) / lag**2, noise / lag, most


def _phases(rows: Tensor, eps: float, lag: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Second differences of the averaged samples, ``lag`` apart, and the rounding error in them.

    Every lag-th sample is a signal of its own, so there are ``lag`` of them, in two groups of equal length:
    yields the phases of a group, ``(B · phases, n)`` and ``(B · phases,)``.
    """
    rounding = 2 * eps * largest(rows)
    if lag == 1:
        yield range(1), rows.diff().diff(), rounding
        return
    # The row's level is subtracted, so that the running sum keeps its digits under an offset.
    level = (rows[:, :1] + rows[:, -1:]) / 2
    sums = torch.nn.functional.pad((rows - level).cumsum(1), (1, 0))
    rounding = rounding + torch.finfo(rows.dtype).eps * largest(sums) / lag
    averages = (sums[:, lag:] - sums[:, :-lag]) / lag
    length, longer = divmod(averages.shape[1], lag)
    spread = torch.nn.functional.pad(averages, (0, -averages.shape[1] % lag))
    spread = spread.view(len(rows), -1, lag).transpose(1, 2)
    for phases, samples in ((range(longer), length + 1), (range(longer, lag), length)):
        if len(phases):
            group = spread[:, phases.start:phases.stop, :samples].reshape(-1, samples).contiguous()
            yield phases, group.diff().diff(), rounding.repeat_interleave(len(phases))


def _at_full_rate(row: Tensor, eps: float, lag: int, window: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of all phases in order of time: place in samples, share of the jump (times spacing), sign."""
    places, found = [], []
    for phases, second, rounding in _phases(row, eps, lag):
        parts, _ = kink_parts(second, window, threshold, rounding)
        phase, step = parts.where // second.shape[1], parts.where % second.shape[1]
        places.append(step * lag + phase + phases.start)
        found.append(parts)
    place = torch.cat(places)
    order = place.argsort()
    jump = torch.cat([parts.jump for parts in found])[order] / lag**2
    sign = torch.cat([parts.sign for parts in found])[order]
    # A second difference belongs to the middle of its three averages.
    return place[order].to(row.dtype) + lag + (lag - 1) / 2, jump, sign


def _gathered(place: Tensor, jump: Tensor, sign: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Neighbouring parts of one sign make a kink at their centroid: times in samples, and jumps."""
    if len(place) == 0:
        return place, jump
    first = (place.diff() > lag) | (sign.diff() != 0)
    if lag == 1 and len(place) > 2:
        # Two kinks of one sign with a valley between them.
        size = jump.abs()
        valley = (size[1:-1] < size[:-2]) & (size[1:-1] <= size[2:]) & ~first[1:] & ~first[:-1]
        first[1:] |= valley
    group = torch.nn.functional.pad(first.cumsum(0), (1, 0))
    count = int(group[-1]) + 1
    total = torch.zeros(count, dtype=jump.dtype, device=jump.device).index_add_(0, group, jump)
    weight = jump.abs()
    mass = torch.zeros_like(total).index_add_(0, group, weight)
    centre = torch.zeros_like(total).index_add_(0, group, weight * place) / mass
    keep = total != 0
    return centre[keep], total[keep]


def _noisy(rows: Tensor) -> Tensor:
    """Whether each row is rough at the scale of its samples, as noise is: differences grow with their order.

    On white noise the median |δ⁶| is 3.6 times the median |δ⁴|, on a smooth curve much smaller.
    """
    fourth = rows.diff(n=4)
    return lower_median(fourth.diff(n=2).abs()) > 2 * lower_median(fourth.abs())


def _portions(rows: Tensor) -> Sequence[Tensor]:
    size = max(1, _AT_ONCE.get(rows.device.type, 1 << 21) // rows.shape[1])
    return rows.split(size) if len(rows) else ()
