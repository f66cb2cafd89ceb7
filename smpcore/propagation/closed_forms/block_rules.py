"""Predicted SMP of one block: linear layers, two-slope units, max pooling.

Inputs are stationary Gaussian signals on a stretch of the path of length T: mean μ, value variance σ², slope
variance λ. The number and size of their crossings follow from Rice's formula (S. O. Rice, Bell Syst. Tech. J.
23-24, 1944/45; R. Adler and J. Taylor, *Random Fields and Geometry*, 2007). The rules are our own derivation
(notebooks 02, sections 2 to 4; 03, sections 2 to 5; 04, sections 1 and 2) from the task set by R. Liu, C.-W. Wong,
H. Dai, arXiv:2103.14731 (2021); nothing here looks at a signal.

Everything broadcasts, takes tensors on any device or plain numbers, computes in float64 and is
differentiable.
"""

import math

import torch
from torch import Tensor

from smpcore.propagation.closed_forms import checks
from smpcore.propagation.closed_forms.crossing_variance import two_slope_smp_std
from smpcore.propagation.closed_forms.gaussian_max import MaxPoolSmp, max_pool_estimate
from smpcore.propagation.closed_forms.orthant import normal_cdf

__all__ = [
    "MaxPoolSmp", "linear_smp", "max_pool_smp", "max_pool_smp_estimate", "random_linear_smp",
    "shared_linear_smp", "two_slope_smp", "two_slope_smp_std",
]


def linear_smp(weight, smp_in) -> Tensor:
    """SMP behind a linear map whose inputs kink at different times: Σ_i |w_oi| SMP(x_i), exactly.

    A linear map makes no kink. It passes each on, scaled by the weight's magnitude: convolution (inputs are
    channels times taps), average pooling, batch norm in evaluation mode, residual sums, upsampling.

    Parameters
    ----------
    weight
        ``(out, in)``.
    smp_in
        ``(..., in)``, input units per unit of t.

    Returns
    -------
    Tensor
        ``(..., out)``. An upper bound where inputs share kinks: see `shared_linear_smp`.
    """
    (weight, smp_in), dtype = checks.tensors(weight=weight, smp_in=smp_in)
    _matrix(weight, smp_in, "smp_in")
    checks.not_negative(smp_in, "smp_in")
    return (smp_in @ weight.abs().mT).to(dtype)


def shared_linear_smp(weight, jumps) -> Tensor:
    """SMP behind a linear map whose inputs kink together: Σ_τ |w · J(τ)|, exactly.

    Behind overlapping pooling windows or a fan-out several inputs kink at the same moment, and their jumps
    add with their signs before the magnitude is taken.

    Parameters
    ----------
    weight
        ``(out, in)``.
    jumps
        ``(..., kinks, in)``: one row for each moment, with the jump of every input there (0 where it has
        none).

    Returns
    -------
    Tensor
        ``(..., out)``; at most `linear_smp` of the inputs' own SMP.
    """
    (weight, jumps), dtype = checks.tensors(weight=weight, jumps=jumps)
    if jumps.dim() < 2:
        raise ValueError(f"jumps has shape {tuple(jumps.shape)}: it has to be (..., kinks, in)")
    _matrix(weight, jumps, "jumps")
    return (jumps @ weight.mT).abs().sum(-2).to(dtype)


def random_linear_smp(weight_std, jumps) -> Tensor:
    """Mean SMP over Gaussian weights drawn independently, mean 0: √(2/π) σ_w Σ_τ ‖J(τ)‖₂.

    At one kink w·J is Gaussian of standard deviation σ_w‖J‖, and E|N(0, s²)| = s√(2/π).

    Parameters
    ----------
    weight_std
        Scalar, or any shape that broadcasts with ``jumps``' leading dimensions.
    jumps
        ``(..., kinks, in)``, as in `shared_linear_smp`.

    Returns
    -------
    Tensor
        ``(...)``.
    """
    (weight_std, jumps), dtype = checks.tensors(weight_std=weight_std, jumps=jumps)
    if jumps.dim() < 2:
        raise ValueError(f"jumps has shape {tuple(jumps.shape)}: it has to be (..., kinks, in)")
    checks.not_negative(weight_std, "weight_std")
    lengths = torch.linalg.vector_norm(jumps, dim=-1).sum(-1)
    checks.broadcast(weight_std=weight_std, jumps=lengths)
    return (math.sqrt(2 / math.pi) * weight_std * lengths).to(dtype)


def two_slope_smp(mean, var, slope_var, duration, smp_in=0.0, slopes=(1.0, 0.0)) -> Tensor:
    """Mean SMP behind y = p·x for x > 0, q·x for x < 0, ReLU by default.

    E SMP(y) = (|p| Φ(μ/σ) + |q| Φ(−μ/σ)) SMP(x)  +  |p − q| T λ/(σ√(2π)) exp(−μ²/(2σ²))

    Old kinks pass with the slope of the side that they meet the unit on. New ones stand at every crossing of
    0, each as large as the slope there: density of x at 0 times E[x'²], where Rice's count of crossings has
    E|x'|. Assumes a Gaussian signal, stationary, so that value and slope are independent; old kinks that
    stand anywhere.

    Parameters
    ----------
    mean, var, slope_var
        μ, σ², λ of the unit's input. For a signal that is not stationary, λ is the variance of the slope
        given that the value is 0.
    duration
        T ≥ 0.
    smp_in
        Of the unit's input.
    slopes
        p above 0, q below: leaky ReLU (1, 0.01), abs (1, −1). Numbers or tensors.

    Returns
    -------
    Tensor
        The common shape of all arguments, output units per unit of t.

    Raises
    ------
    ValueError
        For a variance of 0 or below (a unit that never moves switches never: leave it out), a negative
        duration or SMP, sizes that do not match.
    """
    if isinstance(slopes, str) or not hasattr(slopes, "__len__") or len(slopes) != 2:
        raise ValueError(f"slopes = {slopes!r}: a pair is needed, the slope above 0 and the one below")
    named = {"mean": mean, "var": var, "slope_var": slope_var, "duration": duration, "smp_in": smp_in,
             "slopes[0]": slopes[0], "slopes[1]": slopes[1]}
    values, dtype = checks.tensors(**named)
    checks.broadcast(**dict(zip(named, values, strict=True)))
    mean, var, slope_var, duration, smp_in, above, below = values
    checks.positive(var, "var", "a signal that never varies has no crossings: leave it out")
    checks.positive(slope_var, "slope_var", "a signal that never moves has no crossings: leave it out")
    checks.not_negative(duration, "duration")
    checks.not_negative(smp_in, "smp_in")
    std = var.sqrt()
    level = mean / std
    old = above.abs() * normal_cdf(level) + below.abs() * normal_cdf(-level)
    crossing = slope_var / (std * math.sqrt(2 * math.pi)) * torch.exp(-(level**2) / 2)
    return (old * smp_in + (above - below).abs() * duration * crossing).to(dtype)


def max_pool_smp(value_cov, slope_cov, duration, mean=None, smp_in=0.0) -> Tensor:
    """Mean SMP behind the maximum of k jointly Gaussian signals.

    E SMP(y) = Σ_i P(i wins) SMP(x_i)
             + T Σ_{i<j} Var(x_i' − x_j') f_{x_i − x_j}(0) P(all others < x_i | x_i = x_j)

    f is the density of the difference, its mean included. Values may correlate with the *other* signals'
    slopes, as they do between neighbours on a moving picture: the maximum is convex, every kink turns
    upwards, and the unconditional variance of the slopes' difference is exact. Assumes stationary Gaussian
    signals, and old kinks that stand anywhere.

    The last probability is closed for k ≤ 3, by quadrature for k = 4, and by quasi-Monte Carlo from k = 5 on
    (as is the winner's probability from k = 4 on, needed where there are old kinks), refined until its
    standard error is below 0.1% of each window's SMP; `max_pool_smp_estimate` gives that error as well.

    Parameters
    ----------
    value_cov, slope_cov
        ``(..., k, k)``: V and L of the window, k ≤ 16, which may be singular. Two signals whose difference
        never varies count as one (the larger, if their means differ); a constant signal is allowed, so
        pooling behind ReLU is a window with one more signal that is always 0.
    duration
        T ≥ 0, one number.
    mean
        ``(..., k)``, by default 0.
    smp_in
        ``(..., k)`` or a number: SMP of each signal.

    Returns
    -------
    Tensor
        ``(...)``.

    Raises
    ------
    ValueError
        For covariances that are not symmetric or not positive semi-definite, values that never differ with
        slopes that do, a window over 16 signals, a negative duration or SMP, sizes that do not match.
    """
    return max_pool_estimate(value_cov, slope_cov, duration, mean, smp_in).smp


def max_pool_smp_estimate(value_cov, slope_cov, duration, mean=None, smp_in=0.0) -> MaxPoolSmp:
    """`max_pool_smp` with the standard error of its own integration.

    Returns
    -------
    MaxPoolSmp
        ``smp`` and ``standard_error``, ``(...)`` each; the error is 0 where the figure is closed. It is the
        scatter of eight independent scrambles of the points over √8, of the integration alone: how far
        one signal of finite length lies from this mean is another question.
    """
    return max_pool_estimate(value_cov, slope_cov, duration, mean, smp_in)


def _matrix(weight: Tensor, inputs: Tensor, name: str) -> None:
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: it has to be (out, in)")
    if inputs.dim() < 1 or inputs.shape[-1] != weight.shape[1]:
        raise ValueError(f"sizes do not match: weight {tuple(weight.shape)} takes {weight.shape[1]} inputs, "
                         f"{name} is {tuple(inputs.shape)}")
