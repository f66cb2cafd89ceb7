"""Every call of a model that can switch, handed to a function that may answer it otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from smpcore.inspection import Opening, Scope, call_name, eagerly
from smpcore.units import TABLE, UNFOLLOWED, Selection, canonical, describe, in_place

__all__ = ["UnitCall", "flat_outputs", "watched"]

_CHANNELS_AT = {"linear": -1, "layer_norm": -1} | dict.fromkeys(
    ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm"), 1)


@dataclass(frozen=True)
class UnitCall:
    """One call of an operation of `units.TABLE`.

    Attributes
    ----------
    path
        Of the module that makes it; ``"model"`` for the root.
    op
        The operation, as `units.canonical` names it.
    number
        1 for the first call of that operation in that module within one forward pass, 2 for the next.
    channels
        The dimension in which the last layer with weights before it has its channels.
    func, args, kwargs
        The call itself.
    named_in_place
        Whether the function's own name says that it writes into its input, as ``relu_`` does.
    """

    path: str
    op: str
    number: int
    channels: int
    func: Callable
    args: tuple
    kwargs: dict
    named_in_place: bool

    @property
    def key(self) -> tuple[str, str, int]:
        return self.path, self.op, self.number

    @property
    def moves(self) -> bool:
        """Whether it depends on what requires a gradient."""
        return any(isinstance(part, Tensor) and part.requires_grad for part in tree_leaves((self.args, self.kwargs)))

    @property
    def in_place(self) -> bool:
        """Whether it writes its result into its input."""
        return self.named_in_place or in_place(self.op, self.args, self.kwargs)

    @property
    def name(self) -> str:
        """As `smpcore.attribute` gives it, where it depends on the input at every call."""
        return call_name(self.path, self.op, self.number)

    def describe(self, smooth: bool = False):
        """What `smpcore.units.describe` says of it."""
        return describe(self.op, self.args, self.kwargs, smooth)

    def plain(self):
        """The result, as the model asks for it."""
        return self.func(*self.args, **self.kwargs)

    def answered_by(self, unit: Callable):
        """The result with ``unit(*inputs)`` in the place of the operation; indices are those of the operation."""
        seen = self.describe(smooth=True)
        y = unit(*seen.inputs)
        if not isinstance(seen, Selection) or seen.arrange(y, None) is y:
            return y
        return seen.arrange(y, seen.output(*seen.inputs)[1])


class _Calls(Opening):
    def __init__(self, scope: Scope, answer: Callable, beside: Callable | None):
        super().__init__()
        self.scope, self.answer, self.beside = scope, answer, beside
        self.counts: dict = {}
        self.channels = 1

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        op, overwrites = canonical(func)
        self.channels = _CHANNELS_AT.get(op, self.channels)
        if op in TABLE:
            key = self.scope.path, op
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.answer(UnitCall(*key, self.counts[key], self.channels, func, args, kwargs, overwrites))
        if self.beside is not None and op in UNFOLLOWED:
            self.beside(UnitCall(self.scope.path, op, 1, self.channels, func, args, kwargs, overwrites))
        # Layers with weights are one call to whatever measurement looks on.
        inside = None if op in _CHANNELS_AT else self.inside(func)
        return (inside or func)(*args, **kwargs)


@contextmanager
def watched(model, answer: Callable[[UnitCall], object], beside: Callable[[UnitCall], None] | None = None
            ) -> Iterator[None]:
    """While this is open, one forward pass of ``model`` takes the result of each call that can switch from ``answer``.

    Parameters
    ----------
    beside
        Told of each call that switches and that the table does not describe.
    """
    scope = Scope(model)
    with eagerly(), scope(), _Calls(scope, answer, beside):
        yield


def flat_outputs(result) -> Tensor:
    """``(N, m)``: every floating tensor that a model returned for N inputs, flattened, in order.

    Raises
    ------
    TypeError
        Where there is none.
    """
    found = [part for part in tree_leaves(result) if isinstance(part, Tensor) and part.is_floating_point()]
    if not found:
        raise TypeError(f"the model returns a {type(result).__name__} without a floating tensor in it: wrap it in a "
                        "module that returns its outputs as a tensor, a tuple or a dictionary of tensors")
    return torch.cat([part.reshape(len(part), -1) for part in found], 1)
