"""What travels from block to block when SMP is propagated through layers whose weights are known.

`Statistics` describes the signals on the way: their means, the covariances of their values, of their slopes, and of
values with slopes, and the SMP that they carry already. It states its assumptions, and a rule that needs one that
does not hold refuses by name (`Statistics.require`).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms import checks
from smpcore.propagation.given_weights.kink_sources import Kinks, fresh, smp_of

__all__ = ["Statistics"]

# Standard deviations of a drift that samples of a stationary signal may show.
_LOOSE = 4.5
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
        ``(n, n)`` E[x'_i (x_j − μ_j)]; of a stationary signal it is antisymmetric.
    duration
        T, the length of the path.
    kinks
        What kinks there are so far, as sources with a signed gain to each signal (`_kinks.Kinks`). Sources count as
        standing at different times; one source reaches all signals at once.
    shape
        ``(C,)``, ``(C, L)`` or ``(C, H, W)``, of which n is the product.
    gaussian, stationary
        Whether the signals are.
    moments
        ``"exact"``, or ``"estimated"`` from samples; the word stays with every layer behind.
    depth
        Units gone through, which seeds the draws of their gates.
    """

    mean: Tensor
    value_cov: Tensor
    slope_cov: Tensor
    cross_cov: Tensor
    duration: float
    kinks: tuple[Kinks, ...]
    shape: tuple[int, ...]
    gaussian: bool = True
    stationary: bool = True
    moments: str = "exact"
    depth: int = 0

    @classmethod
    def exact(cls, mean, value_cov, slope_cov, duration, *, cross_cov=0.0, smp=0.0, shape=None) -> "Statistics":
        """Of Gaussian signals whose moments are known.

        They are stationary if ``cross_cov`` is antisymmetric: d/dt E[x_i x_j] = X_ij + X_ji.

        Parameters
        ----------
        mean, smp
            ``(n,)``, or a number for all. Kinks of different signals count as standing at different times.
        value_cov, slope_cov, cross_cov
            ``(n, n)``; ``cross_cov`` 0 by default.
        duration
            T > 0.
        shape
            ``(n,)`` by default.

        Raises
        ------
        ValueError
            For covariances that no values and slopes can have together, sizes that do not match, a duration that is
            not positive, negative SMP.
        """
        (mean, value_cov, slope_cov, duration, cross_cov, smp), dtype = checks.tensors(
            mean=mean, value_cov=value_cov, slope_cov=slope_cov, duration=duration, cross_cov=cross_cov, smp=smp)
        checks.scalar(duration, "duration")
        checks.positive(duration, "duration", "a path takes time")
        checks.not_negative(smp, "smp")
        value_cov = checks.covariance(value_cov, "value_cov", dtype)
        slope_cov = checks.covariance(slope_cov, "slope_cov", dtype)
        n = value_cov.shape[-1]
        shape = (n,) if shape is None else tuple(shape)
        if slope_cov.shape != (n, n) or value_cov.shape != (n, n) or torch.Size(shape).numel() != n:
            raise ValueError(f"sizes do not match: value_cov {tuple(value_cov.shape)}, slope_cov "
                             f"{tuple(slope_cov.shape)}, shape {shape}")
        if not _fits(mean, n) or not _fits(smp, n) or cross_cov.shape not in ((), (n, n)):
            raise ValueError(f"sizes do not match: {n} signals, mean {tuple(mean.shape)}, smp {tuple(smp.shape)}, "
                             f"cross_cov {tuple(cross_cov.shape)}")
        cross_cov = cross_cov.expand(n, n)
        drift = _in_units(cross_cov + cross_cov.mT, value_cov, slope_cov)
        _joint(value_cov, slope_cov, cross_cov, dtype)
        smp = smp.expand(n)
        kinks = (fresh(smp),) if bool((smp > 0).any()) else ()
        steady = bool(drift.abs().amax() <= 1e3 * torch.finfo(dtype).eps)
        return cls(mean.expand(n), value_cov, slope_cov, cross_cov, float(duration), kinks, shape, stationary=steady)

    @classmethod
    def estimated(cls, values, slopes, duration, *, smp=0.0, shape=None) -> "Statistics":
        """From samples of the signals and of their slopes.

        They count as stationary unless E[x'] or E[x' (x − μ)] is not 0 by more than the samples' scatter explains:
        over one run these are the differences of x and of x²/2 between its ends, over T.

        Parameters
        ----------
        values, slopes
            ``(..., P, n)``: P samples of n signals, any number of independent runs.
        duration
            T, of one run.
        smp, shape
            As for `exact`.
        """
        (values, slopes), _ = checks.tensors(values=values, slopes=slopes)
        if values.dim() < 2 or values.shape != slopes.shape or values.shape[-2] < 2:
            raise ValueError(f"values {tuple(values.shape)} and slopes {tuple(slopes.shape)}: both have to be "
                             "(..., P, n) with at least two samples")
        runs = values.shape[:-2].numel()
        values, slopes = (part.reshape(-1, part.shape[-1]) for part in (values, slopes))
        mean = values.mean(0)
        centred, count = values - mean, len(values)
        cross = slopes.T @ centred / count
        found = cls.exact(mean, centred.T @ centred / count, slopes.T @ slopes / count, duration,
                          cross_cov=cross, smp=smp, shape=shape)
        # x_T² − x_0² has standard deviation 2σ² for a Gaussian signal, but a product's long tail in a few runs.
        loose = _LOOSE * (1 + 2 / math.sqrt(runs)) / (float(duration) * math.sqrt(runs))
        steady = (cross.diagonal().abs() <= loose * found.var).all()
        steady = steady & (slopes.mean(0).abs() <= loose * (2 * found.var).sqrt()).all()
        return replace(found, stationary=bool(steady), moments="estimated")

    @property
    def smp(self) -> Tensor:
        """``(n,)`` SMP so far, value units per unit of t."""
        return smp_of(self.kinks, self.mean)
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
        """Behind y = W x + b, W ``(out, n)``: μ → Wμ + b, covariances → W C Wᵀ, each source's gain → W gain."""
        weight = weight.to(self.mean)
        return replace(self, mean=weight @ self.mean + bias, value_cov=weight @ self.value_cov @ weight.T,
                       slope_cov=weight @ self.slope_cov @ weight.T, cross_cov=weight @ self.cross_cov @ weight.T,
                       kinks=tuple(each.linear(weight) for each in self.kinks),
                       shape=(len(weight),) if shape is None else tuple(shape))


def _fits(part: Tensor, n: int) -> bool:
    return part.shape in ((), (n,), (1,))


def _in_units(moment: Tensor, value_cov: Tensor, slope_cov: Tensor) -> Tensor:
    """Of slopes (rows) with values (columns), in units of their standard deviations."""
    rows, columns = (torch.where(part > 0, part, 1.0).sqrt() for part in (slope_cov.diagonal(), value_cov.diagonal()))
    return moment / (rows[:, None] * columns)


def _joint(value_cov: Tensor, slope_cov: Tensor, cross_cov: Tensor, dtype: torch.dtype) -> None:
    """Refuse values, slopes and what they have in common that no signals have together."""
    if not bool(cross_cov.any()):
        return
    values, slopes = (torch.where(part > 0, part, 1.0).sqrt() for part in (value_cov.diagonal(), slope_cov.diagonal()))
    units = torch.cat([values, slopes])
    joint = torch.cat([torch.cat([value_cov, cross_cov.mT], 1), torch.cat([cross_cov, slope_cov], 1)])
    lowest = torch.linalg.eigvalsh(joint / (units[:, None] * units))[0].item()
    if lowest < -1e3 * torch.finfo(dtype).eps * len(units):
        raise ValueError("cross_cov does not go with value_cov and slope_cov: together they are not positive "
                         f"semi-definite (lowest eigenvalue {lowest:.3g} in units of the standard deviations), so no "
                         "signals have them")
