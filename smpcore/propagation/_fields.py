"""Second moments of a layer's maps along a path, and what linear layers do to them.

Given the path, and over draws of the weights, the channels of a layer are independent copies of one another.
So one set of second moments, between positions of the map, stands for all channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Field", "adjoint", "conv_map", "diagonal", "linear_positions", "scaled"]


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
