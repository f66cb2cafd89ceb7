"""Units that choose the largest or smallest of several candidates: `SELECTIONS` describes each.

Whatever the call (a pool in one to three dimensions, a maximum of two tensors, `amax` over dimensions), its inputs
become rows of candidates, ``(*rows, places)``, and its windows a table ``(windows, k)`` of places.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smpcore.units.kinds import Selection

__all__ = ["SELECTIONS", "adaptive_windows", "windows"]


def windows(sides, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False) -> tuple[Tensor, tuple[int, ...]]:
    """The windows of a max pooling with torch's own arguments, on a map of one to three sides.

    Returns
    -------
    table, outer
        ``(windows, k)``, the places in each window, -1 beyond the border; and the sides behind the pooling.

    Raises
    ------
    ValueError
        For a map that is smaller than the window.
    """
    count = len(sides)
    size, padding, dilation = (_each(part, count) for part in (kernel_size, padding, dilation))
    stride = size if stride in (None, [], ()) else _each(stride, count)
    empty = torch.empty(1, 1, *sides, device="meta")
    try:
        outer = getattr(F, f"max_pool{count}d")(empty, size, stride, padding, dilation, ceil_mode=ceil_mode).shape[2:]
    except RuntimeError as error:
        raise ValueError(f"a map of {tuple(sides)} is smaller than the pooling window {size}, or does not fit it: "
                         f"{str(error).splitlines()[0]}") from error
    axes = []
    for axis, side in enumerate(sides):
        first = torch.arange(outer[axis]) * stride[axis] - padding[axis]
        places = first[:, None] + torch.arange(size[axis]) * dilation[axis]
        axes.append((places, (places >= 0) & (places < side)))
    return _product(axes, sides), tuple(outer)


def adaptive_windows(sides, outer) -> Tensor:
    """The places in each window, -1 beyond it, of an adaptive pooling of a map of ``sides`` to one of ``outer``."""
    axes = []
    for side, count in zip(sides, outer, strict=True):
        number = torch.arange(count)
        first, stop = number * side // count, -(-(number + 1) * side // count)
        places = first[:, None] + torch.arange(int((stop - first).max()))
        axes.append((places, places < stop[:, None]))
    return _product(axes, sides)


def _product(axes, sides) -> Tensor:
    """Flat places of windows that are a product of intervals, one (places, whether inside) pair for each axis."""
    table, valid = axes[0]
    for (places, fits), side in zip(axes[1:], sides[1:], strict=True):
        shape = len(table) * len(places), table.shape[1] * places.shape[1]
        table = (table[:, None, :, None] * side + places[None, :, None, :]).reshape(shape)
        valid = (valid[:, None, :, None] & fits[None, :, None, :]).reshape(shape)
    return torch.where(valid, table, -1)


def _each(value, count: int) -> tuple:
    return (value,) * count if isinstance(value, int | None) else tuple(value) * (count // len(value))


def _pooling(x, dimensions, operation, table, return_indices) -> Selection:
    sides = x.shape[-dimensions:]

    def best(rows):
        return tuple(part.flatten(1) for part in operation(rows.reshape(-1, 1, *sides)))

    return Selection("max pool", (x,), 1, lambda x: x.flatten(-dimensions), operation,
                     (lambda y, where: (y, where)) if return_indices else (lambda y, where: y),
                     best, lambda: table(sides).to(x.device))


def _pool(dimensions):
    with_indices = getattr(F, f"max_pool{dimensions}d_with_indices")

    def entry(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        stride = None if stride in ([], ()) else stride
        settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation,
                    "ceil_mode": ceil_mode}
        return _pooling(input, dimensions, lambda x: with_indices(x, **settings),
                        lambda sides: windows(sides, **settings)[0], return_indices)

    return entry


def _adaptive(dimensions):
    with_indices = getattr(F, f"adaptive_max_pool{dimensions}d_with_indices")

    def entry(input, output_size, return_indices=False):
        outer = [side if size is None else size for side, size
                 in zip(input.shape[-dimensions:], _each(output_size, dimensions), strict=True)]
        return _pooling(input, dimensions, lambda x: with_indices(x, output_size),
                        lambda sides: adaptive_windows(sides, outer), return_indices)

    return entry


def _largest(rows: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(rows.max(-1, keepdim=True))


def _two(kind, sign, operation):
    def entry(input, other):
        a, b = _tensor_like(input, other), _tensor_like(other, input)

        def output(a, b):
            a, b = torch.broadcast_tensors(a, b)
            chosen = (b > a) if sign > 0 else (b < a)
            return operation(a, b), chosen.long()

        def source(a, b):
            return torch.stack(torch.broadcast_tensors(a, b), -1)

        return Selection(kind, (a, b), sign, source, output, lambda y, where: y, _largest,
                         lambda: torch.arange(2, device=a.device)[None])

    return entry


def _over(kind, sign, two=None):
    """An entry of a selection over dimensions; with ``two``, as max and min are: also of two tensors."""
    def entry(input, dim=None, keepdim=False, *, other=None):
        if two and (other is not None or isinstance(dim, Tensor)):
            return two(input, dim if other is None else other)
        count, every = input.dim(), dim in (None, (), [])
        axes = range(count) if every else (dim,) if isinstance(dim, int) else dim
        axes = sorted(axis % max(count, 1) - count for axis in axes)
        final = [1 if axis - count in axes else size for axis, size in enumerate(input.shape)
                 if keepdim or axis - count not in axes]
        places = math.prod(input.shape[axis] for axis in axes)

        def source(x):
            x = x.movedim(axes, list(range(-len(axes), 0)))
            return x.reshape(*x.shape[:x.dim() - len(axes)], places)

        def output(x):
            y, where = (torch.max if sign > 0 else torch.min)(source(x), -1)
            return y.reshape(final), where.reshape(final)

        pair = getattr(torch.return_types, kind) if two and not every else None
        return Selection(kind, (input,), sign, source, output,
                         (lambda y, where: pair((y, where))) if pair else (lambda y, where: y), _largest,
                         lambda: torch.arange(places, device=input.device)[None])

    return entry


def _tensor_like(value, other):
    return value if isinstance(value, Tensor) else torch.as_tensor(value).to(other)


SELECTIONS = {
    **{f"max_pool{n}d": _pool(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _adaptive(n) for n in (1, 2, 3)},
    "maximum": _two("maximum", 1, torch.maximum),
    "minimum": _two("minimum", -1, torch.minimum),
    "fmax": _two("maximum", 1, torch.fmax),
    "fmin": _two("minimum", -1, torch.fmin),
    "max": _over("max", 1, _two("maximum", 1, torch.maximum)),
    "min": _over("min", -1, _two("minimum", -1, torch.minimum)),
    "amax": _over("max", 1),
    "amin": _over("min", -1),
}
