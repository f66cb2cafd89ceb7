"""What travels from block to block when SMP is propagated through layers whose weights are known.

`Statistics` describes the signals on the way: their means, the covariances of their values, of their slopes, and of
values with slopes, and the SMP that they carry already. It states its assumptions, and a rule that needs one that
does not hold refuses by name (`Statistics.require`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smpcore.propagation import _checks

__all__ = ["Statistics"]

_WORDS = {"gaussian": "Gaussian signals", "stationary": "signals whose moments do not change along the path"}


@dataclass(frozen=True)
class Statistics:
    """Statistics of n signals, laid out as channels or as a map.

    Attributes
    ----------
    mean
        ``(n,)``.
    value_cov, slope_cov
        ``(n, n)`` covariances of values, and of slopes along the path.
    cross_cov
        ``(n, n)`` E[x'_i (x_j − μ_j)]: 0 on the diagonal for a stationary signal.
    duration
        T, the length of the path.
    smp
        ``(n,)`` SMP so far, value units per unit of t. Kinks of different signals count as standing at different
        times.
    shape
        ``(C,)``, ``(C, L)`` or ``(C, H, W)``, of which n is the product.
    gaussian, stationary
        Whether the signals are.
    """

    mean: Tensor
    value_cov: Tensor
    slope_cov: Tensor
    cross_cov: Tensor
    duration: float
    smp: Tensor
    shape: tuple[int, ...]
    gaussian: bool = True
    stationary: bool = True

    @classmethod
    def exact(cls, mean, value_cov, slope_cov, duration, *, cross_cov=0.0, smp=0.0, shape=None) -> "Statistics":
        """Of Gaussian stationary signals whose moments are known.

        Parameters
        ----------
        mean, smp
            ``(n,)``, or a number for all.
        value_cov, slope_cov, cross_cov
            ``(n, n)``; ``cross_cov`` 0 by default.
        duration
            T > 0.
        shape
            ``(n,)`` by default.

        Raises
        ------
        ValueError
            For covariances that are none, sizes that do not match, a duration that is not positive, negative SMP.
        """
        (mean, value_cov, slope_cov, duration, cross_cov, smp), dtype = _checks.tensors(
            mean=mean, value_cov=value_cov, slope_cov=slope_cov, duration=duration, cross_cov=cross_cov, smp=smp)
        _checks.scalar(duration, "duration")
        _checks.positive(duration, "duration", "a path takes time")
        _checks.not_negative(smp, "smp")
        value_cov = _checks.covariance(value_cov, "value_cov", dtype)
        slope_cov = _checks.covariance(slope_cov, "slope_cov", dtype)
        n = value_cov.shape[-1]
        shape = (n,) if shape is None else tuple(shape)
        if slope_cov.shape != (n, n) or value_cov.shape != (n, n) or torch.Size(shape).numel() != n:
            raise ValueError(f"sizes do not match: value_cov {tuple(value_cov.shape)}, slope_cov "
                             f"{tuple(slope_cov.shape)}, shape {shape}")
        return cls(mean.expand(n), value_cov, slope_cov, cross_cov.expand(n, n), float(duration), smp.expand(n), shape)

    @classmethod
    def estimated(cls, values, slopes, duration, *, smp=0.0, shape=None) -> "Statistics":
        """From samples of the signals and of their slopes.

        Parameters
        ----------
        values, slopes
            ``(..., P, n)``: P samples of n signals, any number of runs.
        duration
            T, of one run.
        smp, shape
            As for `exact`.
        """
        (values, slopes), _ = _checks.tensors(values=values, slopes=slopes)
        if values.dim() < 2 or values.shape != slopes.shape or values.shape[-2] < 2:
            raise ValueError(f"values {tuple(values.shape)} and slopes {tuple(slopes.shape)}: both have to be "
                             "(..., P, n) with at least two samples")
        values, slopes = (part.reshape(-1, part.shape[-1]) for part in (values, slopes))
        mean = values.mean(0)
        centred, count = values - mean, len(values)
        return cls.exact(mean, centred.T @ centred / count, slopes.T @ slopes / count, duration,
                         cross_cov=slopes.T @ centred / count, smp=smp, shape=shape)

    @property
    def var(self) -> Tensor:
        """``(n,)`` value variances."""
        return self.value_cov.diagonal()

    @property
    def slope_var(self) -> Tensor:
        """``(n,)`` slope variances."""
        return self.slope_cov.diagonal()

    def require(self, layer: str, *assumptions: str) -> None:
        """Refuse, by name, what breaks an assumption of a rule: ``"gaussian"``, ``"stationary"``."""
        for assumption in assumptions:
            if not getattr(self, assumption):
                raise ValueError(f"{layer} has a rule for {_WORDS[assumption]} only, and gets others: put a linear "
                                 "layer that mixes many signals before it, or describe its input anew with "
                                 "Statistics.estimated")

    def linear(self, weight: Tensor, bias: Tensor | float = 0.0, shape: tuple[int, ...] | None = None) -> "Statistics":
        """Behind y = W x + b, W ``(out, n)``: μ → Wμ + b, covariances → W C Wᵀ, SMP → |W| SMP."""
        weight = weight.to(self.mean)
        return replace(self, mean=weight @ self.mean + bias, value_cov=weight @ self.value_cov @ weight.T,
                       slope_cov=weight @ self.slope_cov @ weight.T, cross_cov=weight @ self.cross_cov @ weight.T,
                       smp=weight.abs() @ self.smp, shape=(len(weight),) if shape is None else tuple(shape))
