"""SMP and kinks of sampled signals: the sum of the magnitudes of the jumps of the slope, from values alone.

How: second differences at a lag, what no smooth curve explains in them (`smpcore._residual`), the lag
chosen so that noise neither hides kinks nor passes for them. From samples, kinks that share a cell can only
be seen through their sum: where kinks are dense, SMP is a lower bound that grows as the spacing shrinks.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smpcore._residual import kink_parts, lower_median

__all__ = ["Kinks", "find_kinks", "smp"]

# Samples worked on at a time: this bounds the memory (about 100 bytes each) and keeps a GPU busy.
_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
# A phase of a longer lag has at least this many windows, or its medians mean little.
_WINDOWS = 4
# Noise this small beside the largest second difference hides nothing that matters.
_HARMLESS = 1e-3


class Kinks(NamedTuple):
    """Kinks in order of time: ``times (K,)``, from 0 at the first sample, and ``jumps (K,)`` of the slope."""

    times: Tensor | np.ndarray
    jumps: Tensor | np.ndarray


def smp(
    signal: Tensor | np.ndarray,
    spacing: float = 1.0,
    *,
    lag: int | str = "auto",
    window: int = 9,
    threshold: float = 5.0,
) -> Tensor | np.ndarray:
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
        samples on either side that no kink touches, ``lag`` apart.
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
    reversal and the unit of t act on the result as they do on SMP itself. Our own derivation from the idea of
    R. Liu et al., arXiv:2103.14731 (2021).
    """
    values, give_back = _as_tensor(signal)
    _check(values, spacing, lag, window, threshold)
    rows = values.reshape(-1, values.shape[-1])
    totals = [_totals(part, lag, window, threshold)[0] for part in _portions(rows, lag, window, threshold)]
    total = torch.cat(totals) if totals else rows.new_zeros(0, dtype=_working_type(values))
    return give_back((total / float(spacing)).reshape(values.shape[:-1]))


def find_kinks(
    signal: Tensor | np.ndarray,
    spacing: float = 1.0,
    *,
    lag: int | str = "auto",
    window: int = 9,
    threshold: float = 5.0,
) -> Kinks:
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
    values, give_back = _as_tensor(signal)
    if values.dim() != 1:
        raise ValueError(f"find_kinks reads one signal (N,), not {tuple(values.shape)}: call it for each")
    _check(values, spacing, lag, window, threshold)
    row = values[None].to(_working_type(values))
    _, chosen = _totals(row, lag, window, threshold)
    step = int(chosen[0])
    place, jump, sign = _at_full_rate(row, step, window, threshold)
    times, jumps = _gathered(place, jump, sign, step)
    return Kinks(give_back(times * float(spacing)), give_back(jumps / float(spacing)))


def _totals(rows: Tensor, lag: int | str, window: int, threshold: float) -> tuple[Tensor, Tensor]:
    """SMP times spacing of each row, and the lag it was read at."""
    rows = rows.to(_working_type(rows))
    best, noise, largest = _reading(rows, 1 if lag == "auto" else lag, window, threshold)
    chosen = torch.full_like(best, 1 if lag == "auto" else lag, dtype=torch.int64)
    if lag != "auto":
        return best, chosen
    open_rows = (noise > _HARMLESS * largest).nonzero()[:, 0]
    open_rows = open_rows[_noisy(rows[open_rows])]
    step = 2
    while len(open_rows) and rows.shape[1] >= _needed(step, window * _WINDOWS):
        reading, _, _ = _reading(rows[open_rows], step, window, threshold)
        better = reading > best[open_rows]
        best[open_rows] = torch.where(better, reading, best[open_rows])
        chosen[open_rows] = torch.where(better, step, chosen[open_rows])
        # Two octaves past its best lag a signal's kinks only merge further.
        open_rows = open_rows[step <= 2 * chosen[open_rows].clamp_min(8)]
        step *= 2
    return best, chosen


def _reading(rows: Tensor, lag: int, window: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """SMP times spacing, noise and largest second difference of each row at one lag, over its phases."""
    total, noise, largest = (torch.zeros(len(rows), dtype=rows.dtype, device=rows.device) for _ in range(3))
    for phases, second, rounding in _phases(rows, lag):
        parts, deviation = kink_parts(second, window, threshold, rounding)
        total += parts.totals(*second.shape).view(-1, len(phases)).sum(1)
        noise += deviation.view(-1, len(phases)).sum(1)
        largest = torch.maximum(largest, _largest(second).view(-1, len(phases)).amax(1))
    # Parts that noise has turned against their neighbours can outweigh them where there is hardly a kink.
    return total.clamp_min(0) / lag**2, noise / lag, largest


def _phases(rows: Tensor, lag: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Second differences of the averaged samples, ``lag`` apart, and what rounding may make of them.

    Every lag-th sample is a signal of its own, so there are ``lag`` of them, in two groups of equal length:
    yields the phases of a group, ``(B · phases, n)`` and ``(B · phases,)``.
    """
    rounding = 2 * torch.finfo(rows.dtype).eps * _largest(rows)
    if lag == 1:
        yield range(1), rows.diff().diff(), rounding
        return
    # Differences from the row's level, so that an offset does not cost the running sum its digits.
    level = (rows[:, :1] + rows[:, -1:]) / 2
    sums = torch.nn.functional.pad((rows - level).cumsum(1), (1, 0))
    rounding = rounding + torch.finfo(rows.dtype).eps * _largest(sums) / lag
    averages = (sums[:, lag:] - sums[:, :-lag]) / lag
    length, longer = divmod(averages.shape[1], lag)
    spread = torch.nn.functional.pad(averages, (0, -averages.shape[1] % lag))
    spread = spread.view(len(rows), -1, lag).transpose(1, 2)
    for phases, samples in ((range(longer), length + 1), (range(longer, lag), length)):
        if len(phases):
            group = spread[:, phases.start:phases.stop, :samples].reshape(-1, samples).contiguous()
            yield phases, group.diff().diff(), rounding.repeat_interleave(len(phases))


def _at_full_rate(row: Tensor, lag: int, window: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of all phases in order of time: place in samples, share of the jump (times spacing), sign."""
    places, found = [], []
    for phases, second, rounding in _phases(row, lag):
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


def _largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each row."""
    return torch.maximum(rows.amax(1), -rows.amin(1))  # several times as fast as aminmax along a dimension


def _noisy(rows: Tensor) -> Tensor:
    """Whether each row is rough at the scale of its samples, as noise is: differences grow with their order.

    On white noise the median |δ⁶| is 3.6 times the median |δ⁴|, on a smooth curve much smaller.
    """
    fourth = rows.diff(n=4)
    return lower_median(fourth.diff(n=2).abs()) > 2 * lower_median(fourth.abs())


def _portions(rows: Tensor, lag: int | str, window: int, threshold: float) -> Iterator[Tensor]:
    size = max(1, _AT_ONCE.get(rows.device.type, 1 << 20) // rows.shape[1])
    return iter(rows.split(size)) if len(rows) else iter(())


def _working_type(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64


def _needed(lag: int, window: int) -> int:
    """Samples for ``window + 4`` averaged ones in every phase."""
    return lag * (window + 4) + lag - 1


def _as_tensor(signal: Tensor | np.ndarray):
    """A tensor without its graph, and what turns a result into the kind that came in."""
    if isinstance(signal, Tensor):
        values = signal.detach()
        kind = values.dtype if values.is_floating_point() else torch.float64

        def give_back(result: Tensor) -> Tensor:
            return result.to(kind)
    else:
        array = np.asarray(signal)
        if array.ndim == 0 and array.dtype.kind in "fiub":
            raise ValueError("a signal has samples in its last dimension: this is a single number")
        if array.dtype.kind not in "fiubc":
            raise TypeError(f"a signal is real numbers, a tensor or an array, not {_named(signal, array)}")
        # Half, single and double precision; anything longer is measured in double.
        kind = array.dtype if array.dtype.kind == "f" and array.dtype.itemsize <= 8 else np.dtype(np.float64)
        if array.dtype.kind != "c":
            array = array.astype(kind, copy=False)
        values = torch.from_numpy(np.ascontiguousarray(array))

        def give_back(result: Tensor) -> np.ndarray:
            return result.numpy().astype(kind, copy=False)
    if values.is_complex():
        raise TypeError("a signal is real numbers, not complex ones: take its real part, imaginary part or "
                        "magnitude")
    if not values.is_floating_point():
        values = values.to(torch.float64)
    return values, give_back


def _named(signal: object, array: np.ndarray) -> str:
    return "strings" if array.dtype.kind in "US" else type(signal).__name__


def _check(values: Tensor, spacing: float, lag: int | str, window: int, threshold: float) -> None:
    if not _is_number(spacing) or not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"spacing = {spacing!r}: the distance between samples has to be a positive number")
    if lag != "auto" and (not _is_integer(lag) or lag < 1):
        raise ValueError(f"lag = {lag!r}: 'auto' or a whole number of samples, at least 1, is needed")
    if not _is_integer(window) or window < 7 or window % 2 == 0:
        raise ValueError(f"window = {window!r}: an odd number of samples, at least 7, is needed")
    if not _is_number(threshold) or not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold = {threshold!r}: a number of deviations, not negative, is needed")
    if values.dim() == 0:
        raise ValueError("a signal has samples in its last dimension: this is a single number")
    needed = _needed(1 if lag == "auto" else lag, window)
    if values.shape[-1] < needed:
        raise ValueError(
            f"a signal of {values.shape[-1]} samples is too short for lag {lag} and window {window}: at "
            f"least {needed} are needed")
    # A NaN or an infinity is still there in the sum, which is much quicker to look at.
    if not torch.isfinite(values.sum()) and (bad := ~torch.isfinite(values)).any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"the signal is {float(values[index])} at index {index if len(index) > 1 else index[0]}: cut "
            "such samples out or fill them in first")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
