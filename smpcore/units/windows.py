"""Units whose output is the largest of several candidates, seen as rows of candidates and windows over them.

Whatever the call (a pool in one to three dimensions, a maximum of two tensors, `amax` over dimensions), its
input becomes a matrix ``(rows, places)``, and its windows a table ``(windows, k)`` of places, -1 where a window
hangs over the edge. Minima are maxima of the negative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Selection", "adaptive_pool", "over_dimensions", "pool", "two"]

_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


@dataclass(frozen=True)
class Selection:
    """How one call selects.

    Attributes
    ----------
    sign
        1 for a maximum, -1 for a minimum.
    arrange
        From the inputs' ``(n, *shape)`` rows to ``(n * c, places)``.
    best
        From ``(n * c, places)`` to the largest value and its place, ``(n * c, windows)`` each.
    table
        ``(windows, k)``: each window's places, -1 where it has none.
    """

    sign: int
    arrange: Callable[[list[Tensor]], Tensor]
    best: Callable[[Tensor], tuple[Tensor, Tensor]]
    table: Tensor


def pool(dimensions: int, shape, out_shape, size, stride=None, padding=0, dilation=1, ceil_mode=False,
         device=None) -> Selection:
    """`max_pool1d`, `2d`, `3d` with torch's own arguments, on one item of ``shape (..., *places)``."""
    size, padding, dilation = (_each(part, dimensions) for part in (size, padding, dilation))
    stride = size if stride is None or not _given(stride) else _each(stride, dimensions)
    axes = []
    for axis, length in enumerate(shape[-dimensions:]):
        first = torch.arange(out_shape[axis - dimensions], device=device) * stride[axis] - padding[axis]
        places = first[:, None] + torch.arange(size[axis], device=device) * dilation[axis]
        axes.append((places, (places >= 0) & (places < length)))

    def best(rows):
        found, places = _POOLS[dimensions](
            rows.reshape(-1, 1, *shape[-dimensions:]), size, stride, padding, dilation, ceil_mode=ceil_mode,
            return_indices=True)
        return found.flatten(1), places.flatten(1)

    return Selection(1, _spatial(dimensions), best, _table(axes, shape[-dimensions:]))


def adaptive_pool(dimensions: int, shape, out_shape, device=None) -> Selection:
    """`adaptive_max_pool1d`, `2d`, `3d` on one item of ``shape (..., *places)``."""
    axes = []
    for length, windows in zip(shape[-dimensions:], out_shape[-dimensions:], strict=True):
        number = torch.arange(windows, device=device)
        first, stop = number * length // windows, -(-(number + 1) * length // windows)
        places = first[:, None] + torch.arange(int((stop - first).max()), device=device)
        axes.append((places, places < stop[:, None]))

    def best(rows):
        found, places = _ADAPTIVE[dimensions](
            rows.reshape(-1, 1, *shape[-dimensions:]), out_shape[-dimensions:], return_indices=True)
        return found.flatten(1), places.flatten(1)

    return Selection(1, _spatial(dimensions), best, _table(axes, shape[-dimensions:]))


def over_dimensions(shape, dimensions, sign: int, device=None) -> Selection:
    """`amax`, `amin`, `max`, `min` over ``dimensions`` (all of them where it is None) of one item."""
    count = len(shape)
    if dimensions is None:
        dimensions = range(count)
    elif isinstance(dimensions, int):
        dimensions = (dimensions,)
    chosen = sorted({axis % count for axis in dimensions}) if count else []
    kept = [axis for axis in range(count) if axis not in chosen]
    candidates = math.prod(shape[axis] for axis in chosen)

    def arrange(inputs):
        (rows,) = inputs
        return rows.permute(0, *[axis + 1 for axis in kept], *[axis + 1 for axis in chosen]).reshape(
            -1, candidates)

    return Selection(sign, arrange, _largest, torch.arange(candidates, device=device)[None])


def two(shape, sign: int, device=None) -> Selection:
    """`maximum`, `minimum` of two tensors that broadcast to ``shape``."""

    def arrange(inputs):
        sides = [_broadcast(side, shape) for side in inputs]
        count = max(len(side) for side in sides)
        return torch.stack([side.expand(count, *shape) for side in sides], -1).reshape(-1, 2)

    return Selection(sign, arrange, _largest, torch.arange(2, device=device)[None])


def _broadcast(rows: Tensor, shape) -> Tensor:
    """Rows of an item that broadcasts to ``shape``, the pieces kept in front."""
    missing = len(shape) - (rows.dim() - 1)
    return rows.reshape(len(rows), *[1] * missing, *rows.shape[1:]).expand(-1, *shape)


def _largest(rows: Tensor) -> tuple[Tensor, Tensor]:
    found, places = rows.max(-1, keepdim=True)
    return found, places


def _spatial(dimensions: int) -> Callable:
    return lambda inputs: inputs[0].reshape(-1, math.prod(inputs[0].shape[-dimensions:]))


def _table(axes, shape) -> Tensor:
    """Flat places of windows that are a product of intervals, one (places, valid) pair for each axis."""
    table, valid = None, None
    for (places, fits), length in zip(axes, shape, strict=True):
        if table is None:
            table, valid = places, fits
            continue
        windows, size = len(table) * len(places), table.shape[1] * places.shape[1]
        table = (table[:, None, :, None] * length + places[None, :, None, :]).reshape(windows, size)
        valid = (valid[:, None, :, None] & fits[None, :, None, :]).reshape(windows, size)
    return torch.where(valid, table, -1)


def _given(value) -> bool:
    return not (isinstance(value, list | tuple) and len(value) == 0)


def _each(value, dimensions: int) -> tuple[int, ...]:
    return (value,) * dimensions if isinstance(value, int) else tuple(value) * (dimensions // len(value))
