"""Random signals whose kinks and slopes are known: the ground truth of every measurement and prediction.

Gaussian processes have no kinks (circulant embedding: C. Dietrich and G. Newsam, SIAM J. Sci. Comput. 18, 1997),
sums of hinges have exactly the given ones.
Everything is drawn on the CPU from the seed and then moved: the same signals on every device.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from smpcore.arguments import Kind, checked, whole
from smpcore.arguments.device import resolve
from smpcore.paths.checks import generator, is_number
from smpcore.signals import kernels

__all__ = [
    "HingeSignals", "Signals", "autocovariance", "gaussian_process", "hinge_signals", "hinges", "slope_variance",
]

# The embedding's circle is lengthened until the kernel has fallen to _DIED_OUT of its variance half-way
# round, up to _LONGEST durations; the grid is refined until all but _MISSING of the slope variance is on it.
_DIED_OUT, _LONGEST = 1e-6, 16
_MISSING, _FINEST = 1e-4, 64
_NOT_NEGATIVE = Kind(object, ": it must be a finite number of at least 0",
                     lambda value: is_number(value) and value >= 0)


class Signals(NamedTuple):
    """``values`` and ``slopes`` ``(count, samples)``, at ``times`` ``(samples,)``."""

    values: Tensor
    slopes: Tensor
    times: Tensor


class HingeSignals(NamedTuple):
    """``values``, ``slopes`` ``(count, samples)``, ``times`` ``(samples,)``, and the truth: ``kink_times``
    and ``kink_jumps`` ``(count, kinks)``, in order of time."""

    values: Tensor
    slopes: Tensor
    times: Tensor
    kink_times: Tensor
    kink_jumps: Tensor

    @property
    def smp(self) -> Tensor:
        """Σ|jumps| of each signal, ``(count,)``."""
        return self.kink_jumps.abs().sum(-1)


def autocovariance(kernel: str, lags: Tensor, *, length_scale: float | Sequence[float],
                   variance: float | Sequence[float] = 1.0, period: float | None = None) -> Tensor:
    """r(τ) of the signals that `gaussian_process` draws, in closed form.

    Parameters
    ----------
    kernel, length_scale, variance, period
        As in `gaussian_process`.
    lags
        Any shape, units of t.

    Returns
    -------
    Tensor
        The shape of ``lags``, value units squared. Differentiable in ``lags``.

    Raises
    ------
    TypeError
        For lags that are no tensor of real numbers.
    ValueError
        For NaN or infinity, a kernel that is not known, and a length, variance or period that is not positive.
    """
    parts = kernels.components(length_scale, variance)
    _check_finite("lags", lags)
    if kernel == "periodic":
        angle = 2 * math.pi * lags / _need_period(period)
        return sum(part * torch.exp((torch.cos(angle) - 1) / length**2) for length, part in parts)
    shape = kernels.family(kernel).covariance
    return sum(part * shape(lags / length) for length, part in parts)


def slope_variance(kernel: str, *, length_scale: float | Sequence[float], variance: float | Sequence[float] = 1.0,
                   period: float | None = None) -> float:
    """λ = −r''(0), the variance of the slope, infinite for a kernel whose signals have none.

    Parameters are those of `gaussian_process`; the result is in value units squared per unit of t squared.
    """
    parts = kernels.components(length_scale, variance)
    if kernel == "periodic":
        return sum(part * (2 * math.pi / (_need_period(period) * length)) ** 2 for length, part in parts)
    unit = kernels.family(kernel).slope_variance
    return sum(part * unit / length**2 for length, part in parts)


@checked(**kernels.GRID)
def gaussian_process(kernel: str, samples: int, duration: float, *, count: int = 1,
                     length_scale: float | Sequence[float] = 0.5, variance: float | Sequence[float] = 1.0,
                     period: float | None = None, seed: int = 0, device: str | torch.device = "cpu") -> Signals:
    """Draw stationary Gaussian signals of zero mean, with their exact slopes.

    White noise is multiplied by the kernel's spectrum on a circle (circulant embedding). The slope is the same Fourier
    series times iω, so that value and slope belong to one smooth curve.

    Parameters
    ----------
    kernel
        ``"rbf"``, ``"matern72"``, ``"matern52"`` or ``"periodic"``. ``"rational_quadratic"`` is known too,
        and refused where its tail has not died out.
    samples, duration
        Samples on [0, duration], both ends among them: the spacing is duration/(samples − 1).
    count
        How many independent signals.
    length_scale, variance
        The kernel's length (units of t; for ``"periodic"``, relative to period/(2π)) and variance. Several
        lengths make a mixture, which shares one variance equally or takes one for each length.
    period
        Of the periodic kernel; the duration has to be a whole number of periods. By default, the duration.
    seed
        Seeds every draw.
    device
        Where the result goes.

    Returns
    -------
    Signals
        values and slopes ``(count, samples)``, times ``(samples,)``, float64.

    Raises
    ------
    TypeError, ValueError
        For a kernel that is not smooth enough for a slope; one whose tail would wrap round the circle;
        lengths that the samples cannot resolve; a periodic kernel over anything but whole periods; numbers out of
        range; more than 2²⁸ samples in all.
    """
    target = resolve(device)
    kernels.check_size(samples * count, f"{count} signals of {samples} samples")
    parts = kernels.components(length_scale, variance)
    spacing = duration / (samples - 1)
    if kernel == "periodic":
        size, power = _periodic_power(parts, samples, duration, duration if period is None else period)
        finer = 1
    else:
        size, finer, power = _embedded_power(kernel, parts, samples, duration)
    # Power of each harmonic, as it multiplies the transform of `size` white numbers: E|FFT|² = size.
    gain = (power * size).sqrt()
    omega = 2 * math.pi * torch.arange(len(power), dtype=torch.float64) * finer / (size * spacing)
    if size % 2 == 0:
        omega[-1] = 0  # on a grid of even size the slope of the highest harmonic is 0 at every sample
    source = generator(seed)
    values, slopes = (torch.empty(count, samples, dtype=torch.float64) for _ in range(2))
    for start in range(0, count, rows := max(1, kernels.AT_ONCE // size)):
        stop = min(start + rows, count)
        noise = torch.randn(stop - start, size, generator=source, dtype=torch.float64)
        series = torch.fft.rfft(noise) * gain
        for result, harmonics in ((values, series), (slopes, series * (1j * omega))):
            wave = torch.fft.irfft(harmonics, n=size)
            # A periodic signal over whole periods ends where it began: it is read round the circle.
            index = torch.arange(0, samples * finer, finer) % size
            result[start:stop] = wave[:, index]
    times = torch.arange(samples, dtype=torch.float64) * spacing
    return Signals(values.to(target), slopes.to(target), times.to(target))


def _embedded_power(kernel: str, parts: list[tuple[float, float]], samples: int,
                    duration: float) -> tuple[int, int, Tensor]:
    """Size of the circle, refinement of its grid, and the power of its harmonics 0 … size//2."""
    family = kernels.family(kernel)
    if family.reason:
        raise ValueError(
            f"kernel {kernel!r} is not smooth enough for a slope: {family.reason}. Take 'matern52', "
            "'matern72' or 'rbf'")
    half = next((factor * duration for factor in (1, 2, 4, _LONGEST / 2)
                 if _tail(family, parts, factor * duration) <= _DIED_OUT), None)
    if half is None:
        tail = _tail(family, parts, _LONGEST * duration / 2)
        raise ValueError(
            f"kernel {kernel!r} has not died out: its tail at {_LONGEST // 2} durations is still {tail:.1e} "
            f"of its variance (at most {_DIED_OUT:g}) and would wrap round. Take a shorter length_scale or a "
            "longer duration")
    spacing = duration / (samples - 1)
    wanted = sum(part * family.slope_variance / length**2 for length, part in parts)
    finer = 1
    while finer <= _FINEST:
        size = 2 * next_fast_len(math.ceil(half / spacing) * finer)
        step = 2 * math.pi * finer / (size * spacing)
        omega = step * torch.arange(size // 2 + 1, dtype=torch.float64)
        power = sum(part * length * family.spectrum(omega * length) for length, part in parts) * step
        power = power / (2 * math.pi)
        carried = 2 * float((power * omega**2).sum())
        if carried >= (1 - _MISSING) * wanted:
            return size, finer, power
        finer *= 2
    raise ValueError(
        f"a length_scale of {min(length for length, _ in parts):g} is too short for samples {spacing:g} apart"
        ": take more samples or a longer length")


def _tail(family: kernels.Family, parts: list[tuple[float, float]], lag: float) -> float:
    total = sum(part for _, part in parts)
    lags = torch.tensor(lag, dtype=torch.float64)
    return float(sum(part * family.covariance(lags / length) for length, part in parts)) / total


def _periodic_power(parts: list[tuple[float, float]], samples: int, duration: float,
                    period: float) -> tuple[int, Tensor]:
    """The circle is the duration itself, and only every (duration/period)-th of its harmonics has power."""
    periods = round(duration / _need_period(period))
    if periods < 1 or abs(duration / period - periods) > 1e-9 * periods:
        raise ValueError(
            f"a duration of {duration:g} is not a whole number of periods of {period:g}: a periodic kernel "
            "is drawn over whole periods")
    size = samples - 1
    power = torch.zeros(size // 2 + 1, dtype=torch.float64)
    lines = power[::periods]
    lines += sum(part * kernels.harmonics(length, len(lines)) for length, part in parts)
    order = torch.arange(len(lines), dtype=torch.float64)
    wanted = sum(part / length**2 for length, part in parts)
    if not 2 * float((lines * order**2).sum()) >= (1 - _MISSING) * wanted:  # NaN where no float64 holds the series
        raise ValueError(
            f"{size / periods:g} samples a period are too few for a length_scale of "
            f"{min(length for length, _ in parts):g}: take more samples or a longer length")
    return size, power


def _need_period(period: float | None) -> float:
    if not is_number(period, above=0):
        raise ValueError(f"period = {period!r}: the periodic kernel needs a positive period")
    return float(period)


def hinges(times: Tensor, kink_times: Tensor, kink_jumps: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_k J_k max(t − τ_k, 0): a signal with the kinks that it is given, 0 before the first.

    Parameters
    ----------
    times
        ``(samples,)``.
    kink_times, kink_jumps
        ``(..., kinks)``, units of t, and output units per unit of t.

    Returns
    -------
    values, slopes
        ``(..., samples)``. At a kink itself the slope is that before it.

    Raises
    ------
    TypeError
        For anything but tensors of real numbers.
    ValueError
        For times that are not ``(samples,)``, kinks without a time or a jump, NaN or infinity.
    """
    named = {"times": times, "kink_times": kink_times, "kink_jumps": kink_jumps}
    for name, value in named.items():
        _check_finite(name, value)
    if times.ndim != 1 or kink_times.ndim < 1:
        raise ValueError(f"times {tuple(times.shape)} has to be (samples,), kink_times {tuple(kink_times.shape)} "
                         "(..., kinks)")
    if kink_times.shape != kink_jumps.shape:
        raise ValueError(
            f"kink_times {tuple(kink_times.shape)} and kink_jumps {tuple(kink_jumps.shape)} differ in shape: "
            "every kink has one time and one jump")
    kind = functools.reduce(torch.promote_types, (value.dtype for value in named.values()))
    times, kink_times, kink_jumps = (value.to(kind if kind.is_floating_point else torch.float64)
                                     for value in named.values())
    # With the kinks sorted, the slope after the first k of them is a running sum: one look-up for each sample.
    order = kink_times.argsort(-1)
    places, jumps = kink_times.gather(-1, order), kink_jumps.gather(-1, order)
    zero = jumps.new_zeros((*jumps.shape[:-1], 1))
    slope_after = torch.cat([zero, jumps.cumsum(-1)], -1)
    offset_after = torch.cat([zero, (jumps * places).cumsum(-1)], -1)
    grid = times.expand(*places.shape[:-1], len(times)).contiguous()
    passed = torch.searchsorted(places.contiguous(), grid, right=False)
    slopes = slope_after.gather(-1, passed)
    return slopes * grid - offset_after.gather(-1, passed), slopes


@checked(kinks=whole(0), count=whole(), jump_std=_NOT_NEGATIVE, margin=_NOT_NEGATIVE)
def hinge_signals(times: Tensor, kinks: int, *, count: int = 1, jump_std: float = 1.0, margin: float = 0.0,
                  seed: int = 0) -> HingeSignals:
    """Random hinges: kinks uniform over the samples' span, jumps N(0, jump_std²).

    Parameters
    ----------
    times
        ``(samples,)``, increasing.
    kinks
        Kinks in each signal.
    count
        How many independent signals.
    jump_std
        Output units per unit of t.
    margin
        Kept free of kinks at both ends, units of t.
    seed
        Seeds every draw.

    Returns
    -------
    HingeSignals
        Add its values to those of `gaussian_process` for a signal with these kinks and no others.

    Raises
    ------
    TypeError, ValueError
        For times that are no tensor or do not increase, margins that leave no time between them, numbers out of range.
    """
    _check_finite("times", times)
    if times.ndim != 1 or len(times) < 2 or (times.diff() <= 0).any():
        raise ValueError(f"times {tuple(times.shape)} has to be (samples,), at least two, and increase")
    first, last = float(times[0]) + margin, float(times[-1]) - margin
    if not first < last:
        raise ValueError(f"margin = {margin:g} leaves no room between the margins of times from {float(times[0]):g} to "
                         f"{float(times[-1]):g}")
    kernels.check_size(count * max(kinks, len(times)), f"{count} signals of {len(times)} samples and {kinks} kinks")
    source = generator(seed)
    places = torch.rand(count, kinks, generator=source, dtype=torch.float64) * (last - first) + first
    jumps = torch.randn(count, kinks, generator=source, dtype=torch.float64) * jump_std
    places, jumps = places.sort(-1).values.to(times.device), jumps.to(times.device)
    values, slopes = hinges(times.to(torch.float64), places, jumps)
    return HingeSignals(values, slopes, times, places, jumps)


def _check_finite(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} is a torch tensor of real numbers, not {kind}")
    if not value.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
