"""Second moments of a layer's maps along a path, and what linear layers do to them.

Given the path, and over draws of the weights, the channels of a layer are independent copies of one another.
So one set of second moments, between positions of the map, stands for all channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Field", "adjoint", "both_above", "conv_map", "crossing_rate", "diagonal", "linear_positions", "scaled",
           "two_slope_field"]


@dataclass(frozen=True)
class Field:
    """Second moments of one channel's values a and slopes a' at R replicates, P times and N positions.

    Attributes
    ----------
    value, slope, cross
        ``(R, P, N, N)``, E[a_p a_q], E[a'_p a'_q], E[a'_p a_q], not centred; ``(R, P, N)`` where no later layer
        joins positions and only p = q is carried. R is 1 until something is simulated.
    channels
        How many channels there are.
    sides
        Of the map; their product is N. ``()`` for features.
    flat
        Whether the map has been flattened into features.
    gaussian
        Whether it is Gaussian of mean 0 over draws of the weights.
    draw
        ``draw() -> values, slopes``, each ``(R, P, M, N)``: M channels drawn.
    core, rest
        Of a sum: its Gaussian part, and draws of what is added to it.
    before
        Of a two-slope unit's output: the Gaussian field before the unit.
    roots
        The weight layers whose draws it depends on directly: fields without a common one are uncorrelated.
    """

    value: Tensor
    slope: Tensor
    cross: Tensor
    channels: int
    sides: tuple[int, ...]
    flat: bool = False
    gaussian: bool = False
    draw: Callable | None = None
    core: "Field | None" = None
    before: "Field | None" = None
    rest: Callable | None = None
    roots: frozenset = frozenset()

    @property
    def pairs(self) -> bool:
        return self.value.dim() == 4

    @property
    def positions(self) -> int:
        return self.value.shape[-1]

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.slope, self.cross

    def map(self, function, **changes) -> "Field":
        """The same linear function of all three moments."""
        return replace(self, value=function(self.value), slope=function(self.slope), cross=function(self.cross),
                       **changes)


def diagonal(moment: Tensor) -> Tensor:
    """``(R, P, N)``: the moments at p = q."""
    return moment if moment.dim() == 3 else torch.diagonal(moment, dim1=-2, dim2=-1)


def scaled(field: Field, factor: float, offset: float = 0.0, **changes) -> Field:
    """All moments times a factor, and a constant added to the values'."""
    done = field.map(lambda moment: factor * moment, **changes)
    return replace(done, value=done.value + offset) if offset else done


def conv_map(module, sides: tuple[int, ...]) -> tuple[Callable, tuple[int, ...]]:
    """Sum over a convolution's taps, as a linear function of second moments, and the sides behind it.

    Different taps have independent weights, so one tap moves both positions alike:
    K'(p, q) = Σ_δ K(p + δ, q + δ), with stride, dilation, and padding of any mode.
    """
    count = len(sides)
    pads = _pads(module)
    order = []
    for side, (before, after) in zip(sides, pads, strict=True):
        index = torch.arange(side, dtype=torch.float64)[None, None]
        mode = module.padding_mode
        if mode == "zeros":
            index = F.pad(index, (before, after), value=float(side))
        elif before or after:
            index = F.pad(index, (before, after), mode=mode)
        order.append(index[0, 0].long())
    outer = [(len(index) - dilation * (kernel - 1) - 1) // stride + 1 for index, dilation, kernel, stride
             in zip(order, module.dilation, module.kernel_size, module.stride, strict=True)]
    if min(outer) < 1:
        raise ValueError(f"a map of {sides} is smaller than the kernel {module.kernel_size}")
    zeros = module.padding_mode == "zeros"

    def apply(moment: Tensor) -> Tensor:
        copies = moment.dim() - 2
        part = moment.reshape(*moment.shape[:2], *sides * copies)
        for axis in range(count * copies):
            index, side = order[axis % count].to(part.device), sides[axis % count]
            if len(index) == side:
                continue
            if zeros:
                before, after = pads[axis % count]
                part = F.pad(part, (0, 0) * (count * copies - axis - 1) + (before, after))
            else:
                part = part.index_select(2 + axis, index)
        total = None
        for tap in torch.cartesian_prod(*(torch.arange(size) for size in module.kernel_size)).reshape(-1, count):
            where = tuple(slice(int(offset) * dilation, int(offset) * dilation + stride * (size - 1) + 1, stride)
                          for offset, dilation, stride, size
                          in zip(tap, module.dilation, module.stride, outer, strict=True))
            view = part[(slice(None), slice(None), *where * copies)]
            total = view.clone() if total is None else total.add_(view) if not view.requires_grad else total + view
        size = total.shape[2:2 + count].numel()
        return total.reshape(*moment.shape[:2], *[size] * copies)

    return apply, tuple(outer)


def _pads(module) -> list[tuple[int, int]]:
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        total = [dilation * (kernel - 1) for dilation, kernel in
                 zip(module.dilation, module.kernel_size, strict=True)]
        return [(whole // 2, whole - whole // 2) for whole in total]
    return [(pad, pad) for pad in module.padding]


def linear_positions(matrix: Tensor) -> Callable:
    """Average pooling, upsampling: y = A x at every channel, K' = A K Aᵀ; independent positions by A²."""
    squared = matrix**2

    def apply(moment: Tensor) -> Tensor:
        if moment.dim() == 3:
            return moment @ squared.mT
        return matrix @ moment @ matrix.mT

    return apply


def adjoint(function: Callable, sides_before: int, behind: Tensor) -> Tensor:
    """The transpose of a linear function of moments, applied to the mean squared gains behind it."""
    shape = (*behind.shape[:2], *[sides_before] * (behind.dim() - 2))
    start = torch.zeros(shape, dtype=behind.dtype, device=behind.device, requires_grad=True)
    with torch.enable_grad():
        (result,) = torch.autograd.grad(function(start), start, behind)
    return result


# 1 − ρ² below this counts as the same signal.
_SAME = 1e-10


def two_slope_field(field: Field, mean_below: float, square_step: float) -> Field:
    """The moments behind y = x above 0, q x below, for a Gaussian field of mean 0.

    A two-slope unit is q x + (1 − q) ReLU(x); with E[x_p ReLU(x_q)] half of E[x_p x_q], every moment is
    q·(before) + (1 − q)²·(ReLU's). ReLU's: the arc-cosine kernel (Y. Cho, L. Saul, NIPS 2009) for values, and its
    derivatives along the path for slopes (our own derivation, in notebook 06, "How it is computed").

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
    """Crossings of a threshold, per unit of t, ``(2, R, P, N)``: Σ|slope| over them, and their number.

    Rice's formula: f_a(u) E[a'² | a = u] and f_a(u) E[|a'| | a = u]. On a path that is not stationary the slope is
    conditioned on the value: mean X u/K, variance S − X²/K.

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
    drift = cross / safe * level + drift
    rate = density * torch.stack([variance + drift**2, _mean_magnitude(drift, variance)])
    return torch.where(moves, rate if rest is None else rate.mean(3), 0.0)


def _mean_magnitude(mean: Tensor, variance: Tensor) -> Tensor:
    """E|x| of Gaussians."""
    score = mean / torch.where(variance > 0, 2 * variance, 1e-300).sqrt()
    return (2 * variance / math.pi).sqrt() * torch.exp(-(score**2)) + mean * torch.erf(score)
