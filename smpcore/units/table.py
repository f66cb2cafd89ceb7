"""Every unit that can switch: one table, from the call of an operation to where and how it switches.

A *unit* is one number that an operation computes. It *switches* where its derivative with respect to its inputs
jumps, or its value. `TABLE` has one entry for each operation, under torch's name for it (`relu` stands for the
module, the function, the tensor method and their in-place forms alike): a function with the operation's own
signature that describes the call as one of three things.

- `Hinges`: elementwise, with a derivative below and above each threshold (ReLU, clamp, absolute value, …).
- `Selection`: the largest or smallest of several candidates (pooling, maximum, amax, …).
- `Steps`: elementwise, its *value* jumps (sign, rounding, …).

`ELEMENTWISE` has the first and the last of these (a smooth unit has no thresholds), `SELECTIONS` the second; a unit
of your own is entered with `entry`. `smpcore.units.unfollowed` lists operations that switch and are not followed: a
measurement of a result that depends on one is refused, with the operation's name.
"""

import functools
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smpcore.units.elementwise import ELEMENTWISE, SMOOTH
from smpcore.units.kinds import Hinge, Hinges, Selection, Steps, moves
from smpcore.units.selection import SELECTIONS
from smpcore.units.unfollowed import KERNELS, UNFOLLOWED, is_smooth_norm, unfollowed

__all__ = ["TABLE", "UNFOLLOWED", "Hinge", "Hinges", "Selection", "Steps", "Unit", "arguments", "canonical", "describe",
           "entry", "in_place", "moves", "switching", "unfollowed"]

TABLE: dict[str, Callable] = ELEMENTWISE | SELECTIONS

def switching(name: str, args: tuple = (), kwargs: dict | None = None) -> bool:
    """Whether a call, or a kernel of torch's, can switch: one of `TABLE`, of `UNFOLLOWED`, or of those named here."""
    name = _ALIASES.get(name, name)
    known = name in UNFOLLOWED or name in KERNELS or (name in TABLE and name not in SMOOTH)
    return known and not is_smooth_norm(name, args, kwargs or {})


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
_ALIASES = {"clip": "clamp", "absolute": "abs", "fabs": "abs", "fix": "trunc", "sgn": "sign",
            "log_sigmoid": "logsigmoid", "special_expit": "sigmoid"} | {
                f"{name}_with_indices": name for name in SELECTIONS if "pool" in name}


# By what other names torch's functions take their arguments.
_ARGUMENTS = {"self": "input", "x": "input", "axis": "dim", "keepdims": "keepdim"}


def describe(name: str, args: tuple, kwargs: dict, smooth: bool = False) -> Hinges | Selection | Steps | None:
    """Describe one call of an operation of `TABLE`; None where it cannot switch.

    Parameters
    ----------
    name
        As `canonical` gives it.
    args, kwargs
        The arguments that the model gave.
    smooth
        Describe smooth units as well, as `Hinges` without thresholds.

    Raises
    ------
    ValueError
        For a call that switches in a way that is not followed; the message says what to use instead.
    """
    kwargs = {_ARGUMENTS.get(key, key): value for key, value in kwargs.items() if key not in ("inplace", "out")}
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    found = TABLE[name](*args, **kwargs)
    return None if isinstance(found, Hinges) and not found.hinges and not smooth else found


def arguments(name: str, args: tuple, kwargs: dict) -> dict:
    """The arguments of a call of an operation of `TABLE`, by the names that its entry gives them."""
    named = {_ARGUMENTS.get(key, key): value for key, value in kwargs.items()}
    return dict(zip(_parameters(TABLE[name]), args, strict=False)) | named


@functools.cache
def _parameters(description: Callable) -> list[str]:
    return list(inspect.signature(description).parameters)


def in_place(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether the arguments of a call of an operation of `TABLE` say that it writes its result into its input."""
    return arguments(name, args, kwargs).get("inplace") in (True,)  # 1 and numpy's True as well


def entry(description: Callable[..., Hinges | Steps]) -> Callable[..., Tensor]:
    """Enter an elementwise unit of your own in the table, under its function's name.

    Parameters
    ----------
    description
        ``description(x, *settings)`` gives the `Hinges`, or `Steps`, of one call.

    Returns
    -------
    Callable
        What a model calls: ``unit(x, *settings)``, of the shape of ``x``. Attribution, tracing and both predictions see
        it as one call; as a module it is ``units.Unit(unit, *settings)``.

    Raises
    ------
    ValueError
        For a name that torch has already.
    """
    name = description.__name__
    if any(hasattr(place, canonical(description)[0]) for place in (torch, torch.Tensor, F)) or name != name.strip("_"):
        raise ValueError(f"{name} is a name of torch's, or has underscores at its ends: give the unit one of its own")

    @functools.wraps(description)
    def unit(x, *args, **kwargs):
        if torch.overrides.has_torch_function((x,)):
            return torch.overrides.handle_torch_function(unit, (x,), x, *args, **kwargs)
        return description(x, *args, **kwargs).output(x)

    TABLE[name] = description
    return unit


class Unit(nn.Module):
    """A unit as a module: ``forward(x)`` is ``function(x, *settings)``."""

    def __init__(self, function: Callable[..., Tensor], *args, **kwargs):
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.args, **self.kwargs)
