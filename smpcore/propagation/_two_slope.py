"""Second moments behind a two-slope unit, closed, and where Gaussian fields cross a threshold."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from smpcore.propagation._fields import Field, diagonal

__all__ = ["both_above", "crossing_rate", "two_slope_field"]

# 1 − ρ² below this counts as the same signal.
_SAME = 1e-10


def two_slope_field(field: Field, mean_below: float, square_step: float) -> Field:
    """The moments behind y = x above 0, q x below, for a Gaussian field of mean 0.

    A two-slope unit is q x + (1 − q) ReLU(x); with E[x_p ReLU(x_q)] half of E[x_p x_q], every moment is
    q·(before) + (1 − q)²·(ReLU's). ReLU's: the arc-cosine kernel (Y. Cho, L. Saul, NIPS 2009) for values, and its
    derivatives along the path for slopes (our own derivation).

    Parameters
    ----------
    mean_below, square_step
        E[q] and E[(1 − q)²] over channels.
    """
    value, slope, cross = field.moments()
    if field.pairs:
        relu = _pair_moments(value, slope, cross)
    else:
        relu = (value / 2, slope / 2, cross / 2)
    moments = [mean_below * before + square_step * behind
               for before, behind in zip((value, slope, cross), relu, strict=True)]
    return replace(field, value=moments[0], slope=moments[1], cross=moments[2], gaussian=False, draw=None)


def _pair_moments(value: Tensor, slope: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, own = diagonal(value), diagonal(cross)
    still = a <= 0
    safe = torch.where(still, 1.0, a)
    root = safe.sqrt()
    geometric = root[..., :, None] * root[..., None, :]
    cosine = (value / geometric).clamp(-1, 1)
    sine2 = (1 - cosine**2)
    # At p = q, and where two positions always agree, the second slope term is 0.
    apart = sine2 > _SAME
    sine = torch.where(apart, sine2, 0.0).sqrt()
    share = (math.pi - torch.acos(cosine)) / (2 * math.pi)
    values = geometric * (sine / (2 * math.pi) + share * cosine)
    first = own[..., :, None]   # X_pp
    second = own[..., None, :]  # X_qq
    towards = cross             # X_pq = E[a'_p a_q]
    back = cross.mT             # X_qp
    over_a = value / safe[..., :, None]
    over_b = value / safe[..., None, :]
    bend = towards * back - over_a * first * back - over_b * second * towards + first * second
    determinant = torch.where(apart, geometric * sine, 1.0)
    slopes = slope * share + torch.where(apart, bend / (2 * math.pi * determinant), 0.0)
    crosses = towards * share + geometric * sine * first / (2 * math.pi * safe[..., :, None])
    dead = still[..., :, None] | still[..., None, :]
    return tuple(torch.where(dead, 0.0, moment) for moment in (values, slopes, crosses))


def both_above(field: Field) -> Tensor:
    """P(both above 0), ``(R, P, N, N)``, or P(above 0) ``(R, P, N)``: what a ReLU does to squared gains."""
    a = diagonal(field.value)
    if not field.pairs:
        return torch.full_like(a, 0.5)
    root = torch.where(a > 0, a, 1.0).sqrt()
    cosine = (field.value / (root[..., :, None] * root[..., None, :])).clamp(-1, 1)
    return (math.pi - torch.acos(cosine)) / (2 * math.pi)


def crossing_rate(field: Field, threshold: float = 0.0, rest: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Σ|slope| over crossings of a threshold, per unit of t: f_a(u) E[a'² | a = u], ``(R, P, N)``.

    Rice's formula, weighted with the slope. On a path that is not stationary the slope is conditioned on the
    value: mean X u/K, variance S − X²/K.

    Parameters
    ----------
    field
        Gaussian, of mean 0.
    threshold
        u.
    rest
        Values and slopes ``(R, P, M, N)`` of what is added to the Gaussian, drawn: the formula holds given each
        draw, and the mean over draws is taken.
    """
    value, slope, cross = (diagonal(moment) for moment in field.moments())
    moves = value > 0
    safe = torch.where(moves, value, 1.0)
    variance = (slope - cross**2 / safe).clamp(min=0)
    if rest is None:
        level, drift = torch.as_tensor(threshold, dtype=value.dtype), 0.0
    else:
        safe, cross, variance = (part[:, :, None] for part in (safe, cross, variance))
        level, drift = threshold - rest[0], rest[1]
    density = torch.exp(-(level**2) / (2 * safe)) / (2 * math.pi * safe).sqrt()
    rate = density * (variance + (cross / safe * level + drift) ** 2)
    return torch.where(moves, rate if rest is None else rate.mean(2), 0.0)
