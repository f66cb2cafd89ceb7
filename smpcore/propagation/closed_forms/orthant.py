"""P(every component of a Gaussian vector is below 0), for many vectors at once.

One component has the normal distribution function, two have Owen's T function (D. Owen, Ann. Math. Stat. 27,
1956), by quadrature to about 1e-12; up to three of mean 0 have the arcsine law. Others are integrated one after the
other on scrambled Sobol points (A. Genz, J. Comput. Graph. Stat. 1, 1992), the most binding component first (G. Gibson,
C. Glasbey, D. Elston, 1994). The integrand is smooth and its factors are probabilities, so a few hundred points do.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Independently scrambled point sets: their scatter is the estimate's own error.
SCRAMBLES = 8
# A component of lower variance does not vary.
STILL = 1e-10
# Elements of one intermediate tensor; small enough to stay in a processor's cache.
AT_ONCE = 1 << 18
_FAR = 40.0


def normal_cdf(z: Tensor) -> Tensor:
    """Φ(z), accurate in both tails."""
    return torch.special.ndtr(z)


def orthant(mean: Tensor, cov: Tensor, points: int) -> Tensor:
    """P(y < 0) for y ~ N(mean, cov), once for each scramble.

    Parameters
    ----------
    mean, cov
        ``(n, m)`` and ``(n, m, m)``, in units in which variances are about 1 at most. The covariance may be
        singular: a component that never varies counts as below 0 where its mean is at most 0.
    points
        Sobol points in each scramble; not used for m ≤ 2, where all scrambles agree. 0 takes every mean for 0, and
        m ≤ 3, where it is closed.

    Returns
    -------
    Tensor
        ``(SCRAMBLES, n)``, or ``(1, n)`` where the figure is closed.
    """
    size = mean.shape[-1]
    if size == 0:
        return mean.new_ones(1, len(mean))
    if points == 0:
        return _centred(cov)[None]
    if size > 2:
        return _sequential(mean, cov, points)
    variance = torch.diagonal(cov, dim1=-2, dim2=-1)
    varies = variance > STILL
    std = torch.where(varies, variance, 1.0).sqrt()
    fixed = torch.where(mean <= STILL**0.5, _FAR, -_FAR)
    bound = torch.where(varies, -mean / std, fixed)
    if size == 1:
        return normal_cdf(bound).T
    both = varies.all(-1)
    correlation = torch.where(both, cov[:, 0, 1] / (std[:, 0] * std[:, 1]), 0.0)
    return bivariate_cdf(bound[:, 0], bound[:, 1], correlation)[None]


def _centred(cov: Tensor) -> Tensor:
    """Of mean 0 and up to three components: the arcsine law."""
    size = cov.shape[-1]
    variance = torch.diagonal(cov, dim1=-2, dim2=-1)
    still = variance <= STILL
    root = torch.where(still, 1.0, variance).sqrt()
    alone = still[:, :, None] | still[:, None, :]
    correlation = torch.where(alone, 0.0, cov / (root[:, :, None] * root[:, None, :])).clamp(-1, 1)
    first, second = torch.triu_indices(size, size, 1, device=cov.device)
    # A component that never varies counts as an independent one, below 0 half of the time, and then twice.
    share = 2.0**still.sum(-1) / 2**size
    return share * (1 + 2 / math.pi * torch.asin(correlation[:, first, second]).sum(-1))


def bivariate_cdf(h: Tensor, k: Tensor, correlation: Tensor) -> Tensor:
    """P(X < h, Y < k) for standard normal X, Y with that correlation, any shape."""
    inside = correlation.clamp(-1 + 1e-15, 1 - 1e-15)
    root = ((1 - inside) * (1 + inside)).sqrt()
    origin = (h == 0) & (k == 0)
    # The last term is 0 there, and carries the slope φ(0)Φ(0) in either bound.
    centred = 0.25 + torch.asin(inside) / (2 * math.pi) + (h + k) / math.sqrt(8 * math.pi)
    first, second = torch.where(origin, 1.0, h), torch.where(origin, 1.0, k)
    sides = torch.where((first < 0) != (second < 0), 0.5, 0.0)
    value = (0.5 * normal_cdf(first) + 0.5 * normal_cdf(second) - sides
             - _owens_t(first, (second - inside * first) / root)
             - _owens_t(second, (first - inside * second) / root))
    return torch.where(origin, centred, value.clamp(0, 1))


def _owens_t(h: Tensor, product: Tensor) -> Tensor:
    """Owen's T(h, a) given h and the product ha; a has the sign that h = 0 takes from above."""
    sign = torch.where((h < 0) == (product < 0), 1.0, -1.0)
    # Magnitudes that keep the slope from above at 0, where abs() has none.
    a, b = (torch.where(part < 0, -part, part) for part in (h, product))
    # The wedge is integrated below 45 degrees, where the integrand is smooth; above, by reflection.
    steep = b > a
    low, high = torch.where(steep, a, b), torch.where(steep, b, a)
    nodes, weights = legendre(24)
    nodes, weights = (part.to(h) for part in (nodes, weights))
    angle = torch.atan2(low, torch.where(high > 0, high, 1.0))
    theta = angle[..., None] * nodes
    wedge = (torch.exp(-0.5 * (high[..., None] / torch.cos(theta)) ** 2) * weights).sum(-1) * angle
    wedge = wedge / (2 * math.pi)
    reflected = 0.5 * (normal_cdf(a) + normal_cdf(b)) - normal_cdf(a) * normal_cdf(b) - wedge
    return sign * torch.where(steep, reflected, wedge)


@lru_cache
def legendre(count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.as_tensor((nodes + 1) / 2), torch.as_tensor(weights / 2)


@lru_cache(maxsize=32)
def sobol(dimensions: int, points: int) -> Tensor:
    """``(SCRAMBLES * points, dimensions)`` in (0, 1): the same ones at every call, drawn on the CPU."""
    sets = [torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=1729 + k)
            .draw(points, dtype=torch.float64) for k in range(SCRAMBLES)]
    return torch.cat(sets).clamp(2.0**-32, 1 - 2.0**-32)


def symmetric_root(cov: Tensor, power: float = 0.5, least: float = 0.0) -> Tensor:
    """``(..., k, k)``: the covariances' symmetric root, or another ``power``; axes of a variance up to ``least`` times
    the largest give 0.

    It is the one root that does not depend on the choice of axes where variances are equal, so that Gaussian points
    are the same on every device.
    """
    variance, axes = torch.linalg.eigh(cov)
    kept = variance > least * variance[..., -1:]
    scale = torch.where(kept, torch.where(kept, variance, 1.0) ** power, 0.0)
    return (axes * scale[..., None, :]) @ axes.mT


def _sequential(mean: Tensor, cov: Tensor, points: int) -> Tensor:
    rows = max(1, AT_ONCE // (SCRAMBLES * points))
    uniform = sobol(mean.shape[1], points).to(mean)
    parts = [_sequential_rows(*chunk, uniform) for chunk in
             zip(mean.split(rows), cov.split(rows), strict=True)]
    return torch.cat(parts, 1)


def _sequential_rows(mean: Tensor, cov: Tensor, uniform: Tensor) -> Tensor:
    """One component after the other, each drawn below 0 given those before it."""
    size = mean.shape[-1]
    with torch.no_grad():
        order = _most_binding_first(mean, cov)
    mean = mean.gather(1, order)
    cov = cov.gather(1, order[:, :, None].expand(-1, -1, size))
    cov = cov.gather(2, order[:, None, :].expand(-1, size, -1))
    factor, varies = _cholesky(cov)
    drawn, probability = [], 1.0
    for t in range(size):
        offset = mean[:, t, None]
        for before, z in enumerate(drawn):
            offset = offset + factor[before][:, t, None] * z
        pivot = torch.where(varies[t], factor[t][:, t], 1.0)[:, None]
        below = normal_cdf(-offset / pivot)
        still = ~varies[t][:, None]
        if bool(still.any()):
            fixed = (offset <= 10 * STILL**0.5).to(below)
            below = torch.where(still, fixed, below)
        probability = probability * below
        if t < size - 1:
            p = (2 * below * uniform[:, t] - 1).clamp(-1 + 1e-15, 1 - 1e-15)
            z = math.sqrt(2) * torch.erfinv(p)
            drawn.append(torch.where(still, 0.0, z) if bool(still.any()) else z)
    return probability.reshape(len(mean), SCRAMBLES, -1).mean(-1).T


def _cholesky(cov: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Columns of the factor of a covariance that may be singular, and which of its pivots vary."""
    rest, columns, varies = cov, [], []
    for t in range(cov.shape[-1]):
        pivot = rest[:, t, t]
        moves = pivot > STILL
        root = torch.where(moves, pivot, 1.0).sqrt()
        column = torch.where(moves[:, None], rest[:, :, t] / root[:, None], 0.0)
        columns.append(column)
        varies.append(moves)
        rest = rest - column[:, :, None] * column[:, None, :]
    return columns, varies


def _most_binding_first(mean: Tensor, cov: Tensor) -> Tensor:
    """The order in which each next component is the least likely one to be below 0."""
    count, size = mean.shape
    rest, centre = cov.clone(), mean.clone()
    taken = torch.zeros(count, size, dtype=torch.bool, device=mean.device)
    order = []
    for _ in range(size):
        variance = torch.diagonal(rest, dim1=-2, dim2=-1)
        moves = variance > STILL
        bound = torch.where(moves, -centre / torch.where(moves, variance, 1.0).sqrt(), _FAR)
        # Those that no longer vary come last: they are then decided by those that do.
        pick = torch.where(taken, 3 * _FAR, bound.clamp(-_FAR, _FAR) + _FAR * ~moves).argmin(-1)
        order.append(pick)
        one = pick[:, None]
        taken.scatter_(1, one, True)
        limit = bound.gather(1, one)
        # Mean of a standard normal below its bound, whose own tail is kept from dividing by 0.
        tail = torch.exp(-0.5 * limit**2) / math.sqrt(2 * math.pi)
        expected = torch.where(limit > -6, -tail / normal_cdf(limit.clamp(min=-6)), limit)
        pivot = variance.gather(1, one)
        moves_one = moves.gather(1, one)
        column = rest.gather(2, one[:, :, None].expand(-1, size, 1))[..., 0]
        column = torch.where(moves_one, column / torch.where(moves_one, pivot, 1.0).sqrt(), 0.0)
        centre = centre + column * expected
        rest = rest - column[:, :, None] * column[:, None, :]
    return torch.stack(order, -1)
