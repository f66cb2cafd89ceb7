"""Entries of the table: units that choose the largest or smallest of several candidates."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smpcore.units.kinds import TABLE, Selection

__all__ = []


def _pool(dimensions, name, with_indices):
    def entry(x, *args, return_indices=False, **kwargs):
        settings = _bound(name, args, kwargs)
        return_indices = settings.pop("return_indices", return_indices)

        def output(x):
            return with_indices(x, **settings)

        return Selection("max pool", (x,), 1, lambda x: x.flatten(-dimensions), output,
                         (lambda y, where: (y, where)) if return_indices else (lambda y, where: y))

    TABLE[name] = entry


_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def _bound(name, args, kwargs):
    names = ("output_size", "return_indices") if name.startswith("adaptive") else _POOL_ARGUMENTS
    settings = dict(zip(names, args, strict=False)) | kwargs
    if "stride" in settings and not settings["stride"] and settings["stride"] != 0:
        del settings["stride"]
    return settings


for _d, _with in enumerate((F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices), 1):
    _pool(_d, f"max_pool{_d}d", _with)
for _d, _with in enumerate((F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d_with_indices,
                            F.adaptive_max_pool3d_with_indices), 1):
    _pool(_d, f"adaptive_max_pool{_d}d", _with)


def _two(name, kind, sign, operation):
    def entry(a, b):
        a, b = _tensor_like(a, b), _tensor_like(b, a)

        def output(a, b):
            a, b = torch.broadcast_tensors(a, b)
            chosen = (b > a) if sign > 0 else (b < a)
            return operation(a, b), chosen.long()

        def source(a, b):
            return torch.stack(torch.broadcast_tensors(a, b), -1)

        return Selection(kind, (a, b), sign, source, output, lambda y, where: y)

    TABLE[name] = entry
    return entry


_maximum = _two("maximum", "maximum", 1, torch.maximum)
_minimum = _two("minimum", "minimum", -1, torch.minimum)
_two("fmax", "maximum", 1, torch.fmax)
_two("fmin", "minimum", -1, torch.fmin)


def _over(name, kind, sign):
    def entry(x, dim=(), keepdim=False):
        axes = tuple(range(x.dim())) if dim is None or dim == () else (dim,) if isinstance(dim, int) else tuple(dim)
        axes = sorted(axis % max(x.dim(), 1) for axis in axes)
        kept = [axis for axis in range(x.dim()) if axis not in axes]
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        final = shape if keepdim else [shape[axis] for axis in kept]

        def source(x):
            return x.permute(*kept, *axes).reshape(*[x.shape[axis] for axis in kept],
                                                   math.prod(x.shape[axis] for axis in axes))

        def output(x):
            y, where = (torch.max if sign > 0 else torch.min)(source(x), -1)
            return y.reshape(final), where.reshape(final)

        pair = name in ("max", "min") and not (dim is None or dim == ())
        kind_ = (torch.return_types.max if sign > 0 else torch.return_types.min) if pair else None
        return Selection(kind, (x,), sign, source, output,
                         (lambda y, where: kind_((y, where))) if pair else (lambda y, where: y))

    def either(x, *args, **kwargs):
        other = kwargs.get("other", args[0] if args else None)
        if isinstance(other, Tensor):
            return (_maximum if sign > 0 else _minimum)(x, other)
        return entry(x, *args, **kwargs)

    TABLE[name] = either if name in ("max", "min") else entry


for _name, _kind, _sign in (("max", "max", 1), ("min", "min", -1), ("amax", "max", 1), ("amin", "min", -1)):
    _over(_name, _kind, _sign)


def _tensor_like(value, other):
    return value if isinstance(value, Tensor) else torch.as_tensor(value).to(other)
