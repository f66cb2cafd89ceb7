"""One rule for every elementwise unit, read from its hinges in the table of `units`.

A unit with hinges θ_k, derivatives below_k and above_k, makes of a stationary Gaussian signal

    E SMP = T λ/(σ√(2π)) Σ_k |above_k − below_k| exp(−(θ_k − μ)²/2σ²)

(Rice's formula at each hinge: density at θ times E[x'²]), and passes old kinks on with the mean of |derivative|. Our
own derivation, in notebook 02, sections 2 to 4.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.orthant import legendre
from smpcore.units import Hinges

__all__ = ["TwoSlopes", "between_hinges", "crossings", "hinge_rates", "levels", "mean_derivative", "refuse_jumps",
           "two_slopes"]

# Standard deviations beyond which a Gaussian value is not looked for, and nodes between two hinges.
_FAR, _NODES = 8.0, 64


class TwoSlopes(NamedTuple):
    """y = p x above 0, q x below, over a layer's channels: E[p], E[q], E[pq], E|p − q|, E[(p − q)²]."""

    above: float
    below: float
    product: float
    step: float
    square_step: float


def crossings(level: Tensor, var: Tensor, slope_var: Tensor, cross=None, drift=None) -> tuple[Tensor, Tensor]:
    """Σ|slope| and number, per unit of t, of a signal's crossings of ``level``, which is measured from its mean.

    Density at the level times E[x'²] and E|x'| there (S. O. Rice, 1944/45), values and slopes jointly Gaussian. A
    stationary signal's slope has mean 0 and does not depend on its value; that of one which is not has the mean
    ``drift`` and the covariance ``cross`` with the value, so at the level the mean drift + (cross/σ²) level and the
    variance λ − cross²/σ², λ = ``slope_var``.
    """
    density = torch.exp(-(level**2) / (2 * var)) / (2 * math.pi * var).sqrt()
    if cross is None:
        return density * slope_var, density * (2 / math.pi * slope_var).sqrt()
    mean, left = (0.0 if drift is None else drift) + cross / var * level, (slope_var - cross**2 / var).clamp(min=0)
    std = left.sqrt()
    ratio = mean / torch.where(std > 0, std, 1.0)
    magnitude = std * math.sqrt(2 / math.pi) * torch.exp(-(ratio**2) / 2) + mean * torch.erf(ratio / math.sqrt(2))
    return density * (mean**2 + left), density * torch.where(std > 0, magnitude, mean.abs())


def hinge_rates(seen: Hinges, mean: Tensor, var: Tensor, slope_var: Tensor, cross=None, drift=None) -> list[tuple]:
    """Of each hinge: SMP made and number of kinks per unit of t, the threshold, and the step of the derivative; in the
    signals' shape.

    A signal that never moves makes none; ``cross`` and ``drift`` as in `crossings`.
    """
    moves = var > 0
    found = []
    for hinge in seen.hinges:
        at, below, above = (torch.as_tensor(part).to(mean).expand(mean.shape) for part in hinge[:3])
        rate, number = crossings(at - mean, torch.where(moves, var, 1.0), slope_var, cross, drift)
        found.append((torch.where(moves, (above - below).abs() * rate, 0.0),
                      torch.where(moves & (above != below), number, 0.0), at, above - below))
    return found


def between_hinges(seen: Hinges, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Values and weights ``(pieces, nodes, *shape)`` of Gaussians, by Gauss-Legendre quadrature between the hinges."""
    std = var.sqrt()
    safe = torch.where(std > 0, std, 1.0)
    ends = [torch.full_like(mean, sign * _FAR) for sign in (-1, 1)]
    inner = [((torch.as_tensor(hinge.at).to(mean) - mean) / safe).clamp(-_FAR, _FAR) for hinge in seen.hinges]
    edges = torch.stack([*ends, *inner]).sort(0).values
    nodes, weights = (part.to(mean).reshape(-1, *[1] * mean.dim()) for part in legendre(_NODES))
    width = edges.diff(dim=0)[:, None]
    z = edges[:-1, None] + width * nodes
    return mean + std * z, weights * width * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def mean_derivative(seen: Hinges, mean: Tensor, var: Tensor) -> Tensor:
    """E|g'(x)| of Gaussian values."""
    x, share = between_hinges(seen, mean, var)
    return (seen.derivative(x.flatten(0, 1)).reshape(x.shape).abs() * share).sum((0, 1))


def refuse_jumps(seen: Hinges, name: str) -> None:
    """Refuse a unit whose value jumps: its SMP is infinite."""
    if seen.jumps:
        raise ValueError(f"{name} jumps in value at its thresholds, where SMP is infinite: no prediction has a rule "
                         "for it; attribute counts its value jumps")


def two_slopes(seen: Hinges) -> TwoSlopes | None:
    """Of a unit that is straight on either side of 0 and passes through it; None of others."""
    if not seen.straight or len(seen.hinges) != 1 or seen.jumps:
        return None
    at, below, above = (torch.as_tensor(part).double().cpu() for part in seen.hinges[0][:3])
    if bool((at != 0).any()) or bool((seen.output(torch.zeros_like(seen.input)) != 0).any()):
        return None
    return TwoSlopes(*(float(part.mean()) for part in (
        above, below, above * below, (above - below).abs(), (above - below) ** 2)))


def levels(seen: Hinges) -> dict[float, Tensor]:
    """Thresholds, and at each ``(2,)``: the mean over channels of |step of the derivative|, and the share with one."""
    found: dict[float, Tensor] = {}
    for hinge in seen.hinges:
        at, below, above = torch.broadcast_tensors(*(torch.as_tensor(part).double().cpu() for part in hinge[:3]))
        for level in at.unique().tolist():
            step = ((above - below).abs() * (at == level)).flatten()
            found[level] = found.get(level, 0.0) + torch.stack([step.mean(), (step > 0).double().mean()])
    return found
