"""The distribution of SMP over signals, and one law for every convex unit.

Where no closed form of the spread is at hand, Gaussian signals are drawn and passed through the block; their
kinks follow from exact values and slopes at the samples, so nothing is measured on a sampled output.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.propagation.closed_forms import checks
from smpcore.propagation.closed_forms.block_rules import MaxPoolSmp, two_slope_smp
from smpcore.propagation.closed_forms.crossing_variance import two_slope_smp_std
from smpcore.propagation.closed_forms.orthant import SCRAMBLES, sobol, symmetric_root

__all__ = ["Spread", "convex_unit_smp", "maximum_smp", "simulated_spread", "two_slope_spread"]


class Spread(NamedTuple):
    """Mean and standard deviation of SMP over signals, with standard errors (0 where closed), and
    ``method``: ``"closed form"``, or ``"simulated, N signals"``."""

    mean: float
    std: float
    mean_se: float
    std_se: float
    method: str


def two_slope_spread(autocovariance, spacing, slopes=(1.0, 0.0)) -> Spread:
    """Mean and spread behind a two-slope unit, zero mean, no old kinks: closed for any autocovariance.

    Parameters
    ----------
    autocovariance, spacing, slopes
        As in `two_slope_smp_std`.
    """
    std = two_slope_smp_std(autocovariance, spacing, slopes)
    r = torch.as_tensor(autocovariance, dtype=torch.float64)
    # λ from the same sixth-order stencil as the spread.
    curvature = (2 * (2 * r[3] - 27 * r[2] + 270 * r[1]) - 490 * r[0]) / (180 * spacing**2)
    mean = two_slope_smp(0.0, r[0], -curvature, spacing * (len(r) - 1), slopes=slopes)
    return Spread(float(mean), float(std), 0.0, 0.0, "closed form")


def maximum_smp(values, slopes) -> Tensor:
    """SMP of the maximum of signals whose values and slopes are known at samples.

    Between two samples with different winners the crossing is placed on the straight line through both
    differences, and the jump is the difference of the two slopes there. Assumes at most one change of winner
    in a sample's interval: the error falls with the spacing.

    Parameters
    ----------
    values, slopes
        ``(..., P, k)``. ReLU is the maximum of x and 0, abs of x and −x, leaky ReLU of x and its slope times
        x.

    Returns
    -------
    Tensor
        ``(...)``, value units per unit of t.
    """
    (values, slopes), dtype = checks.tensors(values=values, slopes=slopes)
    if values.dim() < 2 or values.shape != slopes.shape or values.shape[-2] < 2:
        raise ValueError(f"values {tuple(values.shape)} and slopes {tuple(slopes.shape)}: both have to be "
                         "(..., P, k) with at least two samples")
    winner = values.argmax(-1, keepdim=True)
    old, new = winner[..., :-1, :], winner[..., 1:, :]
    before, after = values[..., :-1, :], values[..., 1:, :]
    lead = (before.gather(-1, old) - before.gather(-1, new))[..., 0]
    loss = (after.gather(-1, new) - after.gather(-1, old))[..., 0]
    changed = (old != new)[..., 0] & (lead + loss > 0)
    place = lead / torch.where(changed, lead + loss, 1.0)
    first, last = slopes[..., :-1, :], slopes[..., 1:, :]
    turn_first = (first.gather(-1, new) - first.gather(-1, old))[..., 0]
    turn_last = (last.gather(-1, new) - last.gather(-1, old))[..., 0]
    jump = turn_first + place * (turn_last - turn_first)
    return torch.where(changed, jump.abs(), 0.0).sum(-1).to(dtype)


def simulated_spread(
    draw: Callable[[int, int], tuple[Tensor, Tensor]], count: int = 1000, *, seed: int = 0, at_once: int = 250
) -> Spread:
    """Mean and spread of the SMP that a maximum makes of Gaussian signals, by drawing them.

    Parameters
    ----------
    draw
        ``draw(count, seed)`` gives values and slopes ``(count, P, k)`` of fresh signals: those that the unit
        takes the maximum of (`maximum_smp`).
    count
        Signals, at least 2. The spread's own relative error is about 1/√(2 count).
    seed
        Of the first draw; each later one has its own.
    at_once
        Signals in each draw, which bounds the memory.

    Returns
    -------
    Spread
        ``method`` says how many signals it rests on.
    """
    if count < 2 or at_once < 1:
        raise ValueError(f"count = {count}, at_once = {at_once}: a spread needs at least two signals")
    found = []
    for k, start in enumerate(range(0, count, at_once)):
        values, slopes = draw(min(at_once, count - start), seed + 7919 * k)
        found.append(maximum_smp(values, slopes))
    smp = torch.cat(found).to(torch.float64)
    mean, std = smp.mean(), smp.std()
    # Var(s²) ≈ (m₄ − s⁴)/n for any distribution, and s is its root.
    fourth = ((smp - mean) ** 4).mean()
    std_se = ((fourth - std**4).clamp(min=0) / count).sqrt() / (2 * std) if std > 0 else torch.zeros(())
    return Spread(float(mean), float(std), float(std / math.sqrt(count)), float(std_se),
                  f"simulated, {count:,} signals")


def convex_unit_smp(
    unit: Callable[[Tensor], Tensor], value_cov, slope_cov, duration, mean=None, *, points: int = 4096
) -> MaxPoolSmp:
    """One law for every convex piecewise-linear unit: E SMP = T · ⟨L, ∇²_μ E φ(μ + x)⟩ (new kinks).

    Every kink of φ(x(t)) turns upwards, so their sum is minus the mean of the smooth part of the second
    derivative; Gaussian integration by parts turns that into slope covariances L against the Hessian of the
    mean output. The Hessian is E[∇φ(x) (x − μ)ᵀ] V⁻¹, integrated here on scrambled Sobol points: slower than
    the closed rules, and a check of all of them. Assumes stationary Gaussian inputs.

    Parameters
    ----------
    unit
        φ: ``(n, k)`` to ``(n,)``, in torch: ReLU, leaky ReLU and PReLU with slope at most 1, abs, maxout, max
        pooling. Convexity is for the caller to know: for φ that bends both ways the result is the sum of
        upward jumps less that of downward ones.
    value_cov, slope_cov
        ``(k, k)``; V may be singular.
    duration
        T ≥ 0.
    mean
        ``(k,)``, by default 0.
    points
        In each of eight scrambles.

    Returns
    -------
    MaxPoolSmp
        ``smp`` and the ``standard_error`` of the integration, scalars.
    """
    (value_cov, slope_cov, duration, mean), dtype = checks.tensors(
        value_cov=value_cov, slope_cov=slope_cov, duration=duration, mean=0.0 if mean is None else mean)
    checks.scalar(duration, "duration")
    checks.not_negative(duration, "duration")
    value_cov = checks.covariance(value_cov, "value_cov", dtype)
    slope_cov = checks.covariance(slope_cov, "slope_cov", dtype)
    fits = value_cov.dim() == 2 and value_cov.shape == slope_cov.shape
    if not fits or mean.shape not in ((), value_cov.shape[:1]):
        raise ValueError(f"sizes do not match: value_cov {tuple(value_cov.shape)}, slope_cov "
                         f"{tuple(slope_cov.shape)}, mean {tuple(mean.shape)}")
    root, inverse = (symmetric_root(value_cov, power, least=1e-10) for power in (0.5, -0.5))
    white = math.sqrt(2) * torch.erfinv(2 * sobol(len(root), points).to(value_cov) - 1)
    # Each point with its mirror image: what is odd about the mean drops out.
    white = torch.cat([white, -white], -1).reshape(-1, len(root))
    inputs = (mean + white @ root.mT).requires_grad_()
    output = unit(inputs)
    if output.shape != inputs.shape[:1]:
        raise ValueError(f"unit gave shape {tuple(output.shape)} for {tuple(inputs.shape)}: one output for "
                         "each row is needed")
    (gradient,) = torch.autograd.grad(output.sum(), inputs)
    terms = duration * (gradient * (white @ (slope_cov @ inverse).mT)).sum(-1)
    each = terms.detach().reshape(SCRAMBLES, -1).mean(-1)
    return MaxPoolSmp(each.mean().to(dtype), (each.std() / math.sqrt(SCRAMBLES)).to(dtype))
