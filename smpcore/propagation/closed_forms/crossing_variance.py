"""How far the SMP of one signal scatters round its mean: the spread of a two-slope unit, closed."""

import math

import torch
from torch import Tensor

from smpcore.propagation.closed_forms import checks

__all__ = ["crossing_pairs", "two_slope_smp_std"]

# Lags at which the sampled sequence is tested for being an autocovariance at all.
_TESTED = 256
# |r| that comes back to within this share of λh² of σ² has come back; further away than the second it is resolved.
_BACK, _RESOLVED = 0.02, 1.0
# Lags, in units of 1/√λ, between which the second difference tells how rough the slope is.
_ROUGH = 0.1


def two_slope_smp_std(autocovariance, spacing, slopes=(1.0, 0.0)) -> Tensor:
    """Standard deviation of the SMP that a two-slope unit makes of one Gaussian signal of zero mean.

    SMP is |p − q| Σ |x'| over the crossings of 0. With r the autocovariance, λ = −r''(0):

    Var = (p − q)² { T/√(2πσ²) · 2√(2/π) λ^{3/2}  +  2∫_0^T (T−τ) [g(τ) − λ²/(2πσ²)] dτ }

    where g = f (v² + 2c²) is `crossing_pairs`: the first term pairs each crossing with itself, the second
    with all others (Rice's formula for pairs; E[a²b²] = v² + 2c² for Gaussian slopes of variance v and
    covariance c). Where |r| comes back to σ² at a lag τ > 0, as that of a periodic signal does, each crossing meets
    itself again: the first term stands once more for each such lag, with 2(T−τ) for T.

    Parameters
    ----------
    autocovariance
        ``(L,)``: r at lags 0, h, …, T = (L−1)h, of a stationary signal whose slope has a slope.
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
        short or too coarse, one that nearly comes back to σ² within a spacing, one whose rounding hides its
        curvature, one of signals without a slope or whose slope is rough (Matérn 3/2), a spacing that is not positive.
    """
    if isinstance(slopes, str) or not hasattr(slopes, "__len__") or len(slopes) != 2:
        raise ValueError(f"slopes = {slopes!r}: a pair is needed, the slope above 0 and the one below")
    (above, below), _ = checks.tensors(above=slopes[0], below=slopes[1])
    r, spacing, dtype = _checked(autocovariance, spacing)
    variance, slope_variance, pairs = _pairs(r, spacing)
    duration = spacing * (len(r) - 1)
    lags = spacing * torch.arange(len(r), dtype=r.dtype, device=r.device)
    once = 2 * math.sqrt(2 / math.pi) * slope_variance**1.5 / (2 * math.pi * variance).sqrt()
    returns = _returns(r, spacing)
    alone = once * (duration + 2 * (duration - returns).clamp(min=0).sum())
    # A return is counted whole, so a lag that happens to fall on it is not: beside a crossing there is no other.
    beside = ((lags[:, None] - returns).abs() < spacing).any(1)
    pairs = torch.where(beside, 0.0, pairs)
    excess = (duration - lags) * (pairs - slope_variance**2 / (2 * math.pi * variance))
    total = alone + 2 * torch.trapezoid(excess, dx=spacing.item())
    if not bool(total >= 0):
        raise ValueError(f"autocovariance gives a variance of {total.item():.3g}: its lags are too coarse for what it "
                         "does between them; give it at a finer spacing")
    return ((above - below).abs().to(r.device) * total.sqrt()).to(dtype)


def _returns(r: Tensor, spacing: Tensor) -> Tensor:
    """Lags above 0 at which |r| is back at σ², so that x(t + τ) = ±x(t)."""
    with torch.no_grad():
        first, second = _derivatives(r, spacing)
        size, variance, unit = r.abs(), r[0], -second[0] * spacing**2
        peak = (size[1:-1] >= size[:-2]) & (size[1:-1] > size[2:])
        at = 1 + peak.nonzero()[:, 0]
        if float(size[-1]) > float(size[-2]):
            at = torch.cat([at, at.new_tensor([len(r) - 1])])
        # The top of the parabola through a sampled peak; its fourth order is below what counts as back.
        bend = torch.where(second[at] * r[at] < 0, second[at], -unit / spacing**2 * r[at].sign())
        shift = (-first[at] / bend).clamp(-spacing, spacing)
        below = variance - (r[at] + shift * first[at] / 2).abs()
        back = below <= _BACK * unit
        near = ~back & (below < _RESOLVED * unit)
        if bool(near.any()):
            lag = at[near][0].item()
            raise ValueError(f"autocovariance comes back to within {below[near][0].item():.3g} of its {variance:g} at "
                             f"lag {lag}: what crossings do there takes place within less than the spacing of "
                             f"{spacing.item():g}; give it at a finer one")
        return spacing * at[back] + shift[back]


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
    (r, spacing), dtype = checks.tensors(autocovariance=autocovariance, spacing=spacing)
    checks.scalar(spacing, "spacing")
    checks.positive(spacing, "spacing", "it is the distance between lags")
    if r.dim() != 1 or len(r) < 8:
        raise ValueError(f"autocovariance has shape {tuple(r.shape)}: it has to be (L,) with at least 8 lags")
    with torch.no_grad():
        variance = r[0].item()
        if not variance > 0:
            raise ValueError(f"autocovariance is {variance:g} at lag 0: a variance has to be positive")
        # Numbers that float32 can hold were most likely held by it.
        held = torch.float32 if bool((r == r.float()).all()) else dtype
        slack = 1e3 * torch.finfo(held).eps * variance
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
        _check_curvature(r, spacing.item(), held)
    return r, spacing, dtype


def _check_curvature(r: Tensor, spacing: float, held: torch.dtype) -> None:
    """Refuse what has no curvature at lag 0 to be told from these lags."""
    variance = r[0].item()

    def bend(lag: int) -> float:
        return 2 * (variance - r[lag].item()) / (lag * spacing) ** 2

    if bend(1) * spacing**2 > 0.3 * variance:
        raise ValueError(f"autocovariance falls from {variance:g} to {r[1].item():g} in one lag: the spacing of "
                         f"{spacing:g} is too coarse, or the signal has no slope")
    if not bend(1) > 0:
        raise ValueError("autocovariance does not fall from lag 0 to 1: a signal that never moves has no crossings, "
                         "and rounding hides a spacing that is too fine")
    if bend(1) > 1.3 * bend(2):
        raise ValueError("autocovariance has a corner at lag 0 (its second difference grows as the lag shrinks): such "
                         "signals have no slope, or too coarse a spacing")
    # The stencil at lag 0 passes on six roundings or so.
    drowned = 6 * torch.finfo(held).eps * variance / (bend(1) * spacing**2)
    if drowned > 0.01:
        raise ValueError(f"autocovariance falls by {variance - r[1].item():.3g} in one lag, which the rounding of "
                         f"{str(held).removeprefix('torch.')} blurs by {drowned:.0%}: give it in float64, or at a "
                         "coarser spacing")
    # The second difference falls with the lag: in proportion to its square if the slope has a slope, to the lag if
    # the slope is rough. Three lags tell which.
    step = max(1, int(_ROUGH * math.sqrt(variance / bend(1)) / spacing))
    step = min(step, (len(r) - 1) // 3)
    falls = bend(step) - bend(2 * step), bend(2 * step) - bend(3 * step)
    if falls[1] < 1.1 * falls[0]:
        raise ValueError("autocovariance bends ever more sharply towards lag 0: a signal whose slope is rough, such as "
                         "Matérn 3/2, or too coarse a spacing; the rule needs a slope that has a slope")
