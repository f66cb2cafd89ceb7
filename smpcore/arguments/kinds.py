"""Kinds of arguments of public functions: each is checked by name, and all errors have one form of sentence.

    @checked(samples=whole(2), start=TENSOR)
    def sampled(model, start, samples): …

`sampled(model, start, 1)` then raises "samples = 1: it must be at least 2".
"""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["DTYPE", "FUNCTION", "MODULE", "POSITIVE", "TENSOR", "TIMES", "Kind", "check", "checked", "one_of",
           "optional", "several", "whole"]


class Kind(NamedTuple):
    """What an argument must be: its ``types`` (True and False are refused unless this is object); the end of the
    sentence for another type; a condition; and the end of the sentence where it does not hold, if that is another."""

    types: type | tuple | None
    misfit: str
    holds: Callable[[object], bool] = lambda value: True
    broken: str = ""


def whole(least: int = 1) -> Kind:
    """Whole numbers from ``least`` to what 64 bits hold."""
    return Kind(Integral, ": it must be a whole number", lambda value: least <= value < 2**63,
                f": it must be at least {least} and fit into 64 bits")


def one_of(known: Collection[str], use: str = "one of ") -> Kind:
    """One of several words; ``use`` stands before them in the sentence."""
    values = list(known)  # a list compares, so that what cannot be hashed is refused as well
    return Kind(object, f" is not known: use {use}{', '.join(values)}", lambda value: value in values)


def optional(kind: Kind) -> Kind:
    """The kind, or None."""
    return Kind(object, f"{kind.broken or kind.misfit}, or None",
                lambda value: value is None or not _misfit(value, kind))


def several(kind: Kind, misfit: str, count: int | None = None, least: int = 1, or_one: bool = False) -> Kind:
    """A sequence of a kind, of ``count`` values or at least ``least``; where ``or_one``, also one such value alone."""
    def holds(value):
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            return or_one and not _misfit(value, kind)
        return not any(_misfit(one, kind) for one in value) and least <= len(value) and count in (None, len(value))

    return Kind(object, misfit, holds)


#: Real numbers above 0.
POSITIVE = Kind(Real, ": it must be a number above 0", lambda value: 0 < value < math.inf)
FUNCTION = Kind(object, ": it must be a function", callable)
MODULE = Kind(torch.nn.Module, ": it must be a torch.nn.Module, not its class")
TENSOR = Kind(torch.Tensor, ": it must be a tensor of floating numbers", torch.is_floating_point)
TIMES = Kind(torch.Tensor, ": it must be a tensor (P,) of times", lambda times: times.ndim == 1 and len(times) > 0,
             ": it must be a tensor (P,) of at least one time")
DTYPE = Kind(torch.dtype, ": it must be a floating type of torch's, such as torch.float64",
             lambda dtype: dtype.is_floating_point)


def check(values: dict, kinds: dict[str, Kind]) -> None:
    """Refuse the first value that is not of its kind.

    Raises
    ------
    TypeError, ValueError
        "name = value: it must be …", the value cut where it is long.
    """
    for name, kind in kinds.items():
        if error := _misfit(values[name], kind):
            words = _brief(values[name])
            raise error(f"{name} = {words}{(error is ValueError and kind.broken) or kind.misfit}")


def checked(**kinds: Kind) -> Callable:
    """A decorator that checks a function's arguments, given by their names, before it runs."""
    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **words):
            try:
                given = signature.bind(*args, **words)
            except TypeError:  # an argument too many or too few: the call below raises Python's own error
                return function(*args, **words)
            given.apply_defaults()
            check(given.arguments, kinds)
            return function(*args, **words)

        return call

    return decorate


def _misfit(value, kind: Kind) -> type[Exception] | None:
    """The type of the error for a value, None where it is of the kind."""
    if not isinstance(value, kind.types) or (isinstance(value, bool) and kind.types is not object):
        return TypeError
    try:
        return None if kind.holds(value) else ValueError
    except Exception:  # the value has no such comparison
        return ValueError


def _brief(value) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:77]}…"
