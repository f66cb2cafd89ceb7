"""Stationary kernels in closed form: autocovariance, spectrum and slope variance of the signals we draw.

Conventions: r(τ) = E[x(t) x(t+τ)] and S(ω) = ∫ r(τ) exp(−iωτ) dτ. Sources: C. Rasmussen and C. Williams,
*Gaussian Processes for Machine Learning* (2006), chapter 4; for the periodic kernel, the Jacobi-Anger series
of exp(z cos θ).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

from smpcore.arguments import Kind, whole
from smpcore.paths.checks import are_numbers, is_number


@dataclass(frozen=True)
class Family:
    """A kernel of unit variance: r(τ/ℓ), S(ω ℓ)/ℓ, and −r''(0) ℓ². ``reason`` says why it cannot be drawn."""

    covariance: Callable[[Tensor], Tensor]
    spectrum: Callable[[Tensor], Tensor] | None = None
    slope_variance: float = math.inf
    reason: str = ""


def _matern(twice_nu: int, polynomial: Sequence[float], reason: str = "") -> Family:
    """Matérn of half-integer order: r = exp(−s) Σ c_k s^k with s = √(2ν)|τ|/ℓ."""
    nu = twice_nu / 2
    scale = math.sqrt(2 * nu)
    log_constant = (math.log(2 * math.sqrt(math.pi)) + math.lgamma(nu + 0.5) - math.lgamma(nu)
                    + nu * math.log(2 * nu))

    def covariance(lags: Tensor) -> Tensor:
        s = scale * lags.abs()
        return torch.exp(-s) * sum(c * s**k for k, c in enumerate(polynomial))

    def spectrum(omega: Tensor) -> Tensor:
        return torch.exp(log_constant - (nu + 0.5) * torch.log(2 * nu + omega**2))

    return Family(covariance, spectrum, nu / (nu - 1) if nu > 1 else math.inf, reason)


FAMILIES = {
    "rbf": Family(lambda s: torch.exp(-(s**2) / 2),
                  lambda w: math.sqrt(2 * math.pi) * torch.exp(-(w**2) / 2), 1.0),
    "matern72": _matern(7, (1.0, 1.0, 2 / 5, 1 / 15)),
    "matern52": _matern(5, (1.0, 1.0, 1 / 3)),
    "matern32": _matern(3, (1.0, 1.0), "its slope is as rough as Brownian motion, so no kink can be told from it"),
    "exponential": _matern(1, (1.0,), "its signals have no slope anywhere"),
    "rational_quadratic": Family(lambda s: 1 / (1 + s**2 / 2),
                                 lambda w: math.sqrt(2) * math.pi * torch.exp(-math.sqrt(2) * w.abs()), 1.0),
}
NAMES = ("periodic", *FAMILIES)

# Kinds of arguments, and those of a grid of samples.
NUMBER = Kind(object, ": it must be a finite number", is_number)
ABOVE_0 = Kind(object, ": it must be positive and finite", lambda value: is_number(value, above=0))
GRID = {"samples": whole(2), "duration": ABOVE_0, "count": whole()}

# Numbers drawn at a time, which bounds the memory that drawing takes, and numbers in a result: 2 GiB of float64.
AT_ONCE, _MOST = 1 << 22, 1 << 28


def components(length_scale: float | Sequence[float], variance: float | Sequence[float]) -> list[tuple[float, float]]:
    """[(length, variance)] of a mixture; a single variance is divided equally among the lengths."""
    lengths = _listed("length_scale", length_scale)
    variances = _listed("variance", variance)
    if is_number(variance):
        variances = [variances[0] / len(lengths)] * len(lengths)
    if len(lengths) != len(variances):
        raise ValueError(
            f"{len(lengths)} length scales and {len(variances)} variances: give one variance for all, or one "
            "for each length")
    return list(zip(lengths, variances, strict=True))


def _listed(name: str, values: float | Sequence[float]) -> list[float]:
    listed = [values] if is_number(values) else values
    if isinstance(listed, Tensor | np.ndarray) and listed.ndim == 1:
        listed = listed.tolist()
    if not isinstance(listed, Sequence) or not len(listed) or not are_numbers(listed, len(listed), above=0):
        raise ValueError(f"{name} = {values!r}: it has to be positive and finite, one number or several")
    return [float(value) for value in listed]


def family(kernel: str) -> Family:
    """The family of that name; the periodic kernel is none of them."""
    if not isinstance(kernel, str) or kernel not in FAMILIES:
        raise ValueError(f"kernel {kernel!r} is not known: choose one of {', '.join(NAMES)}")
    return FAMILIES[kernel]


def harmonics(length_scale: float, count: int) -> Tensor:
    """Power of the harmonics 0 … count−1 of exp(−2 sin²(θ/2)/ℓ²), one side of the series."""
    order = torch.arange(count, dtype=torch.float64)
    return torch.as_tensor(ive(order.numpy(), 1 / length_scale**2))


def check_size(numbers: float, what: str) -> None:
    """Refuse more numbers than are drawn in one call, before memory is taken for them."""
    if numbers > _MOST:
        raise ValueError(f"{what}: one call draws at most {_MOST:,} numbers; draw fewer, or in several calls of "
                         "different seeds")
