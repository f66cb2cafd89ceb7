"""How far the SMP of one signal scatters round its mean: the spread of a two-slope unit, closed."""

import math

import torch
from torch import Tensor

from smpcore.propagation import _checks

__all__ = ["crossing_pairs", "two_slope_smp_std"]

# Lags at which the sampled sequence is tested for being an autocovariance at all.
_TESTED = 256


def two_slope_smp_std(autocovariance, spacing, slopes=(1.0, 0.0)) -> Tensor:
    """Standard deviation of the SMP that a two-slope unit makes of one Gaussian signal of zero mean.

    SMP is |p − q| Σ |x'| over the crossings of 0. With r the autocovariance, λ = −r''(0):

    Var = (p − q)² { T/√(2πσ²) · 2√(2/π) λ^{3/2}  +  2∫_0^T (T−τ) [g(τ) − λ²/(2πσ²)] dτ }

    where g = f (v² + 2c²) is `crossing_pairs`: the first term pairs each crossing with itself, the second
    with all others (Rice's formula for pairs; E[a²b²] = v² + 2c² for Gaussian slopes of variance v and
    covariance c).

    Parameters
    ----------
    autocovariance
        ``(L,)``: r at lags 0, h, …, T = (L−1)h. Any stationary signal whose slope has a finite variance.
    spacing
        h.
    slopes
        p above 0, q below.

    Returns
    -------
    Tensor
        Scalar, output units per unit of t. Old kinks of the input are not in it.

    Raises
    ------
    ValueError
        For a sequence that is no autocovariance (r(0) ≤ 0, |r| > r(0), not positive semi-definite), one too
        short or too coarse, one of signals without a slope, a spacing that is not positive.
    """
    if isinstance(slopes, str) or not hasattr(slopes, "__len__") or len(slopes) != 2:
        raise ValueError(f"slopes = {slopes!r}: a pair is needed, the slope above 0 and the one below")
    (above, below), _ = _checks.tensors(above=slopes[0], below=slopes[1])
    r, spacing, dtype = _checked(autocovariance, spacing)
    variance, slope_variance, pairs = _pairs(r, spacing)
    duration = spacing * (len(r) - 1)
    lags = spacing * torch.arange(len(r), dtype=r.dtype, device=r.device)
    alone = duration / (2 * math.pi * variance).sqrt() * 2 * math.sqrt(2 / math.pi) * slope_variance**1.5
    excess = (duration - lags) * (pairs - slope_variance**2 / (2 * math.pi * variance))
    total = alone + 2 * torch.trapezoid(excess, dx=spacing.item())
    return ((above - below).abs().to(r.device) * total.clamp(min=0).sqrt()).to(dtype)


def crossing_pairs(autocovariance, spacing) -> Tensor:
    """g(τ) = f (v² + 2c²): density of two crossings of 0 a lag τ apart, times E of both squared slopes.

    With det = σ⁴ − r²: f = 1/(2π√det), v = λ − r'²σ²/det, c = −r'' − r'²r/det. At lag 0 the density f grows
    as 1/τ while the slopes' conditional variance v falls at least as τ, so g is 0 there, and finite
    everywhere: close to one crossing there is no second.

    Parameters
    ----------
    autocovariance, spacing
        As in `two_slope_smp_std`.

    Returns
    -------
    Tensor
        ``(L,)``, at the same lags.
    """
    r, spacing, dtype = _checked(autocovariance, spacing)
    return _pairs(r, spacing)[2].to(dtype)


def _pairs(r: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """σ², λ, and g at every lag."""
    first, second = _derivatives(r, spacing)
    variance, slope_variance = r[0], -second[0]
    det = (variance - r) * (variance + r)
    # Where the value returns with certainty (lag 0, a whole period) g is 0 in the limit.
    apart = det > 1e-11 * variance**2
    safe = torch.where(apart, det, 1.0)
    v = (slope_variance - first**2 * variance / safe).clamp(min=0)
    c = -second - first**2 * r / safe
    c = torch.minimum(torch.maximum(c, -v), v)
    pairs = torch.where(apart, (v**2 + 2 * c**2) / (2 * math.pi * safe.sqrt()), 0.0)
    return variance, slope_variance, pairs


def _derivatives(r: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """r' and r'' by central differences of sixth order; r is even, and its end is continued smoothly."""
    extended = torch.cat([r[1:4].flip(0), r])
    for _ in range(3):
        ahead = sum((-1) ** (k + 1) * math.comb(5, k) * extended[-k] for k in range(1, 6))
        extended = torch.cat([extended, ahead[None]])
    length = len(r)
    near, mid, far = ((extended[3 + m: 3 + m + length], extended[3 - m: 3 - m + length]) for m in (1, 2, 3))
    first = (45 * (near[0] - near[1]) - 9 * (mid[0] - mid[1]) + far[0] - far[1]) / (60 * spacing)
    second = (2 * (far[0] + far[1]) - 27 * (mid[0] + mid[1]) + 270 * (near[0] + near[1]) - 490 * r)
    return first, second / (180 * spacing**2)


def _checked(autocovariance, spacing) -> tuple[Tensor, Tensor, torch.dtype]:
    (r, spacing), dtype = _checks.tensors(autocovariance=autocovariance, spacing=spacing)
    _checks.scalar(spacing, "spacing")
    _checks.positive(spacing, "spacing", "it is the distance between lags")
    if r.dim() != 1 or len(r) < 8:
        raise ValueError(f"autocovariance has shape {tuple(r.shape)}: it has to be (L,) with at least 8 lags")
    with torch.no_grad():
        variance = r[0].item()
        if not variance > 0:
            raise ValueError(f"autocovariance is {variance:g} at lag 0: a variance has to be positive")
        slack = 1e3 * torch.finfo(dtype).eps * variance
        over = (r.abs() > variance + slack).nonzero()
        if len(over):
            lag = over[0].item()
            raise ValueError(f"autocovariance is {r[lag].item():g} at lag {lag}, more than {variance:g} at "
                             "lag 0: no stationary signal has that")
        thin = r[::math.ceil(len(r) / _TESTED)]
        index = torch.arange(len(thin), device=r.device)
        lowest = torch.linalg.eigvalsh(thin[(index[:, None] - index).abs()])[0].item()
        if lowest < -slack * len(thin):
            raise ValueError("autocovariance is not one: the covariance matrix that it gives has an "
                             f"eigenvalue of {lowest:.3g}, so it is not positive semi-definite")
        bend = [2 * (variance - r[m].item()) / (m * spacing.item()) ** 2 for m in (1, 2)]
        if bend[0] * spacing.item() ** 2 > 0.3 * variance:
            raise ValueError(f"autocovariance falls from {variance:g} to {r[1].item():g} in one lag: the "
                             f"spacing of {spacing.item():g} is too coarse, or the signal has no slope")
        if not bend[0] > 0:
            raise ValueError("autocovariance does not fall from lag 0 to 1: a signal that never moves has no "
                             "crossings, and rounding hides a spacing that is too fine")
        if bend[0] > 1.3 * bend[1]:
            raise ValueError("autocovariance has a corner at lag 0 (its second difference grows as the lag "
                             "shrinks): such signals have no slope, or too coarse a spacing")
    return r, spacing, dtype
