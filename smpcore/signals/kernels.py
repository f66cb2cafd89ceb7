"""Stationary kernels in closed form: autocovariance, spectrum and slope variance of the signals we draw.

Conventions: r(τ) = E[x(t) x(t+τ)] and S(ω) = ∫ r(τ) exp(−iωτ) dτ. Sources: C. Rasmussen and C. Williams,
*Gaussian Processes for Machine Learning* (2006), chapter 4; for the periodic kernel, the Jacobi-Anger series
of exp(z cos θ).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.special import ive
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """A kernel of unit variance: r(τ/ℓ), S(ω ℓ)/ℓ, and −r''(0) ℓ². ``reason`` says why it cannot be drawn."""

    covariance: Callable[[Tensor], Tensor]
    spectrum: Callable[[Tensor], Tensor] | None = None
    slope_variance: float = math.inf
    reason: str = ""


def _matern(twice_nu: int, polynomial: Sequence[float]) -> Family:
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

    return Family(covariance, spectrum, nu / (nu - 1) if nu > 1 else math.inf)


def _rough(family: Family, reason: str) -> Family:
    return Family(family.covariance, family.spectrum, family.slope_variance, reason)


FAMILIES = {
    "rbf": Family(lambda s: torch.exp(-(s**2) / 2),
                  lambda w: math.sqrt(2 * math.pi) * torch.exp(-(w**2) / 2), 1.0),
    "matern72": _matern(7, (1.0, 1.0, 2 / 5, 1 / 15)),
    "matern52": _matern(5, (1.0, 1.0, 1 / 3)),
    "matern32": _rough(_matern(3, (1.0, 1.0)), "its slope is as rough as Brownian motion, so no kink can be "
                                               "told from it"),
    "exponential": _rough(_matern(1, (1.0,)), "its signals have no slope anywhere"),
    "rational_quadratic": Family(lambda s: 1 / (1 + s**2 / 2),
                                 lambda w: math.sqrt(2) * math.pi * torch.exp(-math.sqrt(2) * w.abs()), 1.0),
}
NAMES = ("periodic", *FAMILIES)

# Numbers drawn at a time, which bounds the memory.
AT_ONCE = 1 << 22


def components(length_scale: float | Sequence[float], variance: float | Sequence[float]) -> list[tuple]:
    """[(length, variance)] of a mixture; a single variance is shared out equally over the lengths."""
    lengths = [length_scale] if isinstance(length_scale, int | float) else list(length_scale)
    if isinstance(variance, int | float):
        variances = [variance / len(lengths)] * len(lengths) if lengths else []
    else:
        variances = list(variance)
    if not lengths or len(lengths) != len(variances):
        raise ValueError(
            f"{len(lengths)} length scales and {len(variances)} variances: give one variance for all, or one "
            "for each length")
    if not all(math.isfinite(value) and value > 0 for value in (*lengths, *variances)):
        raise ValueError(f"length scales {lengths} and variances {variances} have to be positive and finite")
    return [(float(length), float(part)) for length, part in zip(lengths, variances, strict=True)]


def family(kernel: str) -> Family:
    """The family of that name, periodic apart."""
    if kernel not in FAMILIES:
        raise ValueError(f"kernel {kernel!r} is not known: choose one of {', '.join(NAMES)}")
    return FAMILIES[kernel]


def harmonics(length_scale: float, count: int) -> Tensor:
    """Power of the harmonics 0 … count−1 of exp(−2 sin²(θ/2)/ℓ²), one side of the series."""
    order = torch.arange(count, dtype=torch.float64)
    return torch.as_tensor(ive(order.numpy(), 1 / length_scale**2))


def check_grid(samples: int, duration: float, count: int) -> None:
    if samples < 2 or count < 1 or not (duration > 0 and math.isfinite(duration)):
        raise ValueError(
            f"samples = {samples}, duration = {duration}, count = {count}: at least 2 samples, a positive "
            "duration and one signal are needed")
