"""Smooth random pictures that drift: the signals of neighbouring pixels, with exact slopes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.arguments import checked, several, whole
from smpcore.arguments.device import resolve
from smpcore.paths.checks import generator
from smpcore.signals.kernels import ABOVE_0, AT_ONCE, GRID, NUMBER, check_size

_PICTURE = {"height": whole(), "width": whole(), "length_scale": ABOVE_0, "variance": ABOVE_0,
            "velocity": several(NUMBER, ": it must be two finite numbers, in pixels down and right", 2)}


class PictureSignals(NamedTuple):
    """``values`` and ``slopes`` ``(count, samples, height, width)``, at ``times`` ``(samples,)``."""

    values: Tensor
    slopes: Tensor
    times: Tensor


@checked(**GRID, **_PICTURE)
def moving_pictures(samples: int, duration: float, *, height: int, width: int, count: int = 1,
                    length_scale: float = 2.0, velocity: tuple[float, float] = (1.0, 0.5), variance: float = 1.0,
                    seed: int = 0, device: str | torch.device = "cpu") -> PictureSignals:
    """Smooth random pictures (a 2-D Gaussian field, RBF) that drift: neighbouring pixels with exact slopes.

    Pixel (i, j) shows the field at (i + v₁t, j + v₂t). The field is a Fourier series, summed exactly at
    every position, so nothing is interpolated; its period is longer than the path.

    Parameters
    ----------
    samples, duration, count, seed, device
        As in `gaussian_process`.
    height, width
        Pixels of each picture.
    length_scale
        Of the field, in pixels.
    velocity
        Pixels per unit of t, down and right.
    variance
        Of the field.

    Returns
    -------
    PictureSignals
        values and slopes ``(count, samples, height, width)``, times ``(samples,)``, float64.

    Raises
    ------
    TypeError, ValueError
        For sizes, lengths or velocities that make no picture, and more than 2²⁸ values in all.

    See Also
    --------
    picture_covariances : the covariances of these pixels in closed form.
    """
    target = resolve(device)
    check_size(samples * count * height * width, f"{count} signals of {samples} samples")
    times = torch.linspace(0, duration, samples, dtype=torch.float64)
    source = generator(seed)
    axes = [_torus(size, abs(speed) * duration, length_scale)
            for size, speed in zip((height, width), velocity, strict=True)]
    (rows, row_power), (columns, column_power) = axes
    amplitude = (variance * row_power[:, None] * column_power).sqrt()
    values, slopes = (torch.empty(count, samples, height, width, dtype=torch.float64) for _ in range(2))
    pixel_rows = _turned(torch.arange(height, dtype=torch.float64)[:, None] * rows)
    pixel_columns = _turned(torch.arange(width, dtype=torch.float64)[:, None] * columns)
    at_once = max(1, AT_ONCE // (max(height, 8) * len(columns)))
    for k in range(count):
        # The real part of independent complex amplitudes has exactly the wanted covariance.
        draw = torch.randn(2, *amplitude.shape, generator=source, dtype=torch.float64)
        field = amplitude * torch.complex(*draw)
        for part in torch.arange(samples).split(at_once):
            down, right = (_turned(times[part, None] * speed * axis)
                           for axis, speed in zip((rows, columns), velocity, strict=True))
            # (P, height, rows) @ (rows, columns), then (P, height, columns) @ (columns, width)
            value = _sum_series(pixel_rows, pixel_columns, down, right, field)
            rate = 1j * (velocity[0] * rows[:, None] + velocity[1] * columns)
            values[k, part] = value
            slopes[k, part] = _sum_series(pixel_rows, pixel_columns, down, right, field * rate)
    return PictureSignals(values.to(target), slopes.to(target), times.to(target))


def _turned(angle: Tensor) -> Tensor:
    """exp(i · angle)."""
    return torch.polar(torch.ones_like(angle), angle)


def _sum_series(pixel_rows: Tensor, pixel_columns: Tensor, down: Tensor, right: Tensor, field: Tensor) -> Tensor:
    left = (pixel_rows * down[:, None]) @ field
    return ((left * right[:, None]) @ pixel_columns.T).real


def _torus(size: int, drift: float, length: float) -> tuple[Tensor, Tensor]:
    """Frequencies of one axis and their power: errors from the period and the highest frequency are about 1e-8."""
    # Positions a period apart correlate by less than exp(−6²/2) ≈ 1e-8; the power left out is as small.
    around = size + drift + 6 * length
    step = 2 * math.pi / around
    check_size((2.1 * around / length) ** 2, f"a field {around:.3g} pixels long, of length_scale {length:.3g}")
    top = math.ceil(6.5 / (length * step))
    omega = step * torch.arange(-top, top + 1, dtype=torch.float64)
    power = length / math.sqrt(2 * math.pi) * torch.exp(-((omega * length) ** 2) / 2) * step
    return omega, power


@checked(**_PICTURE)
def picture_covariances(height: int, width: int, *, length_scale: float = 2.0,
                        velocity: tuple[float, float] = (1.0, 0.5), variance: float = 1.0) -> tuple[Tensor, Tensor]:
    """Value and slope covariance of the pixels of `moving_pictures`, in closed form.

    Returns
    -------
    value_cov, slope_cov
        ``(height*width, height*width)`` each, pixels in row-major order: V_pq = σ² exp(−|p−q|²/2ℓ²) and
        L_pq = (|v|²/ℓ² − (v·(p−q))²/ℓ⁴) V_pq.

    Raises
    ------
    TypeError, ValueError
        As `moving_pictures`.
    """
    check_size((height * width) ** 2, f"the covariances of {height} by {width} pixels")
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(torch.float64).reshape(-1, 2)
    apart = grid[:, None] - grid
    speed = torch.tensor(velocity, dtype=torch.float64)
    value = variance * torch.exp(-(apart**2).sum(-1) / (2 * length_scale**2))
    along = (apart @ speed) / length_scale**2
    return value, ((speed**2).sum() / length_scale**2 - along**2) * value
