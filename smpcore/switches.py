"""Every unit that can switch: one table, from the call of an operation to where and how it switches.

A *unit* is one number that an operation computes. It *switches* where its slope with respect to its inputs
jumps. `TABLE` has one entry for each operation, under the name by which torch calls it (`relu` stands for the
module, the function, the tensor method and their in-place kin alike): a function with the operation's own
signature that describes the call as one of three things.

- `Hinges`: elementwise, with a slope below and above each threshold (ReLU, clamp, absolute value, …).
- `Selection`: the largest or smallest of several candidates (pooling, maximum, amax, …).
- `Steps`: elementwise, its *value* jumps (sign, rounding, …).

To add a unit, add one entry here and its case in the table of the tests. `UNFOLLOWED` names what switches and
is not followed: a result that depends on it is refused, by name.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TABLE", "UNFOLLOWED", "Hinge", "Hinges", "Selection", "Steps", "canonical", "describe"]


class Hinge(NamedTuple):
    """One threshold of an elementwise unit.

    Attributes
    ----------
    at
        Where its input switches it: a number, or a tensor that broadcasts to the input.
    below, above
        The unit's slope with respect to its input on either side, at the threshold.
    step
        Its value just above minus its value just below: 0 for a kink.
    """

    at: float | Tensor
    below: float | Tensor
    above: float | Tensor
    step: float | Tensor = 0.0


class Hinges(NamedTuple):
    """An elementwise unit.

    Attributes
    ----------
    kind
        In words.
    input
        What crosses the thresholds.
    hinges
        The thresholds.
    output
        Computes the unit's output, out of place: ``output(input)``.
    straight
        Whether the unit is affine between its thresholds.
    """

    kind: str
    input: Tensor
    hinges: tuple[Hinge, ...]
    output: Callable[[Tensor], Tensor]
    straight: bool = True


class Selection(NamedTuple):
    """The largest, or smallest, of several candidates.

    Attributes
    ----------
    kind
        In words.
    inputs
        The tensors that the candidates come from.
    sign
        1 for the largest, -1 for the smallest.
    source
        From the inputs to ``(*rows, places)``: windows select among the places of their own row.
    output
        From the inputs to the selected values and their place, ``(*rows, windows)`` in any shape that flattens
        to it.
    arrange
        From (values, places) to what the call returns.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    sign: int
    source: Callable[..., Tensor]
    output: Callable[..., tuple[Tensor, Tensor]]
    arrange: Callable[[Tensor, Tensor], object]


class Steps(NamedTuple):
    """An elementwise unit whose value jumps.

    Attributes
    ----------
    kind
        In words.
    input
        Its input.
    level
        The piecewise-constant part of the output: ``level(input)``.
    output
        Computes the unit's output, out of place.
    """

    kind: str
    input: Tensor
    level: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]


TABLE: dict[str, Callable] = {}

#: What switches and is not followed, and what would do instead.
UNFOLLOWED = dict.fromkeys(
    ("sort", "argsort", "msort", "topk", "median", "nanmedian", "kthvalue", "mode", "quantile", "nanquantile"),
    "its order switches: use amax, amin or maximum, which are followed, or measure with smp from samples")
UNFOLLOWED |= dict.fromkeys(
    ("cummax", "cummin", "argmax", "argmin", "aminmax", "fractional_max_pool2d", "fractional_max_pool3d",
     "segment_reduce", "scatter_reduce", "index_reduce", "norm", "vector_norm", "linalg_vector_norm",
     "l1_loss", "cdist",
     "pairwise_distance", "dist", "renorm"),
    "its selection is not followed: write it with abs, amax, amin or maximum, or measure with smp from samples")
UNFOLLOWED |= dict.fromkeys(
    ("gt", "lt", "ge", "le", "eq", "ne", "greater", "less", "greater_equal", "less_equal", "not_equal", "__gt__",
     "__lt__", "__ge__", "__le__", "__eq__", "__ne__", "isclose", "signbit", "logical_not", "nonzero", "bucketize",
     "searchsorted", "histc", "long", "int", "short", "bool", "byte", "char", "remainder", "fmod", "__mod__",
     "floor_divide", "__floordiv__", "isposinf", "isneginf", "unique"),
    "a mask or an index that switches is not followed: write it with relu, clamp, abs or maximum, or measure "
    "with smp from samples")


def canonical(func: Callable) -> tuple[str, bool]:
    """The name of an operation as `TABLE` knows it, and whether the call is in place."""
    name = getattr(func, "__name__", str(func))
    if name.startswith("boolean_dispatch"):
        name = name.split("<")[-1].strip(">")
    if name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__int__", "__invert__"):
        return f"__{name[3:]}", True
    if name.startswith("__"):
        return _DUNDER.get(name, name), name == "__setitem__"
    place = name.endswith("_")
    name = name.rstrip("_")
    return _ALIASES.get(name, name), place


_DUNDER = {"__abs__": "abs"}
_ALIASES = {"clip": "clamp", "absolute": "abs", "fabs": "abs", "max_pool1d_with_indices": "max_pool1d",
            "max_pool2d_with_indices": "max_pool2d", "max_pool3d_with_indices": "max_pool3d",
            "adaptive_max_pool1d_with_indices": "adaptive_max_pool1d",
            "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
            "adaptive_max_pool3d_with_indices": "adaptive_max_pool3d", "fix": "trunc", "sgn": "sign"}


def describe(name: str, args: tuple, kwargs: dict) -> Hinges | Selection | Steps | None:
    """What one call of an operation of `TABLE` can do; None where it cannot switch.

    Parameters
    ----------
    name
        As `canonical` gives it.
    args, kwargs
        As the model gave them.

    Raises
    ------
    ValueError
        For a call that switches in a way that is not followed, with the way round.
    """
    kwargs = {key: value for key, value in kwargs.items() if key not in ("inplace", "out")}
    if "input" in kwargs:
        args, kwargs = (kwargs.pop("input"), *args), kwargs
    return TABLE[name](*args, **kwargs)


def _entry(function: Callable) -> Callable:
    TABLE[function.__name__.strip("_")] = function
    return function


def _hinge(kind, x, *hinges, output, straight=True):
    return Hinges(kind, x, tuple(Hinge(*hinge) for hinge in hinges), output, straight)


# Elementwise, two slopes ----------------------------------------------------------------------------------


@_entry
def relu(x, inplace=False):
    return _hinge("relu", x, (0.0, 0.0, 1.0), output=torch.relu)


@_entry
def leaky_relu(x, negative_slope=0.01, inplace=False):
    return _hinge("leaky relu", x, (0.0, negative_slope, 1.0), output=lambda x: F.leaky_relu(x, negative_slope))


@_entry
def prelu(x, weight):
    slope = weight if weight.numel() == 1 or x.dim() < 2 else weight.reshape(-1, *[1] * (x.dim() - 2))
    slope = slope.detach()
    return _hinge("prelu", x, (0.0, slope.reshape(()) if slope.numel() == 1 else slope, 1.0),
                  output=lambda x: torch.prelu(x, weight))


@_entry
def rrelu(x, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if training:
        raise ValueError("rrelu draws random slopes in training mode: call model.eval() first")
    slope = (lower + upper) / 2
    return _hinge("rrelu", x, (0.0, slope, 1.0), output=lambda x: F.leaky_relu(x, slope))


@_entry
def elu(x, alpha=1.0, inplace=False):
    return _hinge("elu", x, *([] if alpha == 1 else [(0.0, alpha, 1.0)]), output=lambda x: F.elu(x, alpha),
                  straight=False)


@_entry
def selu(x, inplace=False):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return _hinge("selu", x, (0.0, scale * alpha, scale), output=F.selu, straight=False)


@_entry
def abs(x):
    return _hinge("abs", x, (0.0, -1.0, 1.0), output=torch.abs)


@_entry
def threshold(x, threshold, value, inplace=False):
    return _hinge("threshold", x, (threshold, 0.0, 1.0, threshold - value),
                  output=lambda x: F.threshold(x, threshold, value))


# Elementwise, several thresholds --------------------------------------------------------------------------


@_entry
def hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    return _hinge("hardtanh", x, (min_val, 0.0, 1.0), (max_val, 1.0, 0.0),
                  output=lambda x: F.hardtanh(x, min_val, max_val))


@_entry
def relu6(x, inplace=False):
    return _hinge("relu6", x, (0.0, 0.0, 1.0), (6.0, 1.0, 0.0), output=F.relu6)


@_entry
def hardsigmoid(x, inplace=False):
    return _hinge("hardsigmoid", x, (-3.0, 0.0, 1 / 6), (3.0, 1 / 6, 0.0), output=F.hardsigmoid)


@_entry
def hardswish(x, inplace=False):
    # x relu6(x + 3)/6 has slope (2x + 3)/6 inside: -1/2 at -3 and 3/2 at 3.
    return _hinge("hardswish", x, (-3.0, 0.0, -0.5), (3.0, 1.5, 1.0), output=F.hardswish, straight=False)


@_entry
def softshrink(x, lambd=0.5):
    return _hinge("softshrink", x, (-lambd, 1.0, 0.0), (lambd, 0.0, 1.0), output=lambda x: F.softshrink(x, lambd))


@_entry
def hardshrink(x, lambd=0.5):
    return _hinge("hardshrink", x, (-lambd, 1.0, 0.0, lambd), (lambd, 0.0, 1.0, lambd),
                  output=lambda x: F.hardshrink(x, lambd))


@_entry
def clamp(x, min=None, max=None):
    if min is None and max is None:
        return None
    if any(isinstance(bound, Tensor) and moves(bound) for bound in (min, max)):
        raise ValueError("clamp between bounds that depend on the input is not followed: write it with maximum "
                         "and minimum")
    if isinstance(min, Tensor) != isinstance(max, Tensor) and None not in (min, max):
        min, max = torch.as_tensor(min).to(x), torch.as_tensor(max).to(x)
    # Where min exceeds max, torch's clamp is max everywhere: nothing switches.
    live = 1.0 if None in (min, max) else (torch.as_tensor(min) < torch.as_tensor(max)).to(x)
    hinges = [] if min is None else [(_plain(min), 0.0, live)]
    hinges += [] if max is None else [(_plain(max), live, 0.0)]
    return _hinge("clamp", x, *hinges, output=lambda x: torch.clamp(x, min, max))


@_entry
def clamp_min(x, min):
    return clamp(x, min=min)


@_entry
def clamp_max(x, max):
    return clamp(x, max=max)


# Elementwise, the value jumps -----------------------------------------------------------------------------


def _steps(name, kind, level, output=None):
    TABLE[name] = lambda x, **_: Steps(kind, x, level, output or level)


_steps("sign", "sign", torch.sign)
_steps("floor", "floor", torch.floor)
_steps("ceil", "ceil", torch.ceil)
_steps("trunc", "trunc", torch.trunc)
_steps("frac", "frac", lambda x: -torch.trunc(x), torch.frac)


@_entry
def round(x, *, decimals=0):
    return Steps("round", x, lambda x: torch.round(x, decimals=decimals),
                 lambda x: torch.round(x, decimals=decimals))


@_entry
def heaviside(x, values):
    return Steps("heaviside", x, lambda x: torch.heaviside(x, values),
                 # torch's own has no derivative, neither forward nor backward; this one's is 0, as it should be.
                 lambda x: torch.heaviside(x.detach(), values) + 0 * x)


# Selections -----------------------------------------------------------------------------------------------


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


def moves(tensor: Tensor) -> bool:
    """Whether a tensor carries a tangent: whether it depends on the path."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None


def _plain(value):
    return value.detach() if isinstance(value, Tensor) else value


def _tensor_like(value, other):
    return value if isinstance(value, Tensor) else torch.as_tensor(value).to(other)
