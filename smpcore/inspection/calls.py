"""Every call of a model, told apart in one way for all that follow one.

`Interpreter` runs around one forward pass and hands each call of torch on, as a `Call`, to its method `call`:
attribution and tracing follow what depends on the path, smoothing answers what can switch, the predictions read a
module. A `Call` knows its operation by the name in the table of units, the module that makes it
(`smpcore.inspection.module_scope` names it), the tensors among its arguments, and whether it writes into one.
"""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from smpcore.inspection.module_scope import CallNames, Scope, call_name, eagerly
from smpcore.inspection.operations import AFFINE, CONVOLUTIONS, RANDOM
from smpcore.inspection.recurrences import UNROLLED
from smpcore.inspection.refusals import refusal
from smpcore.units import TABLE, UNFOLLOWED, Selection, canonical, describe, in_place

__all__ = ["Call", "Interpreter", "Opening", "tensors_in", "watched"]

_HAS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_OPENED: dict = {}
#: The dimension in which layers with weights have their channels.
_CHANNELS_AT = dict.fromkeys((*AFFINE, "layer_norm"), -1) | dict.fromkeys((*CONVOLUTIONS, "batch_norm"), 1)


def tensors_in(value) -> list[Tensor]:
    """All tensors in a value, in lists, tuples and dictionaries of it, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


class Call:
    """One call of a function of torch.

    Attributes
    ----------
    func, args, kwargs
        The call itself.
    path
        Of the module that makes it; ``"model"`` for the root.
    op
        The operation, as `units.canonical` names it.
    attribute
        The attribute of a tensor that is read or assigned (`data`, `T`), as ``op`` ``"__get__"`` or ``"__set__"``.
    overwrites
        Whether the function's own name says that it writes into its first argument, as ``relu_`` does.
    number
        1 for the first call of that operation in that module within one forward pass, 2 for the next (`watched`).
    channels
        The dimension in which the last layer with weights before it has its channels (`watched`).
    """

    number = channels = 1

    def __init__(self, func: Callable, args: tuple, kwargs: dict, path: str):
        self.op, self.overwrites = canonical(func)
        if self.overwrites and not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {name: value for name, value in kwargs.items() if name != "input"}
        self.func, self.args, self.kwargs, self.path = func, args, kwargs, path
        self.attribute = getattr(func.__self__, "__name__", "") if self.op in ("__get__", "__set__") else ""

    @property
    def place(self) -> str:
        """``module.path:operation``."""
        return call_name(self.path, self.op, 1)

    @property
    def name(self) -> str:
        """As `smpcore.attribute` gives it, where it depends on the input at every call."""
        return call_name(self.path, self.op, self.number)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from all other calls of a forward pass, in a form that can be kept."""
        return self.path, self.op, self.number

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors among its arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    @property
    def moves(self) -> bool:
        """Whether it depends on what requires a gradient."""
        return any(part.requires_grad for part in self.tensors)

    @property
    def in_place(self) -> bool:
        """Whether a unit writes its result into its input."""
        return self.overwrites or in_place(self.op, self.args, self.kwargs)

    def describe(self, smooth: bool = False):
        """What `smpcore.units.describe` says of it."""
        return describe(self.op, self.args, self.kwargs, smooth)

    def plain(self):
        """The result, as the model asks for it."""
        return self.func(*self.args, **self.kwargs)

    def answered_by(self, unit: Callable):
        """The result with ``unit(*inputs)`` in the place of the operation, written where it writes its own.

        Indices are those of the operation.
        """
        seen = self.describe(smooth=True)
        y = unit(*seen.inputs)
        if self.in_place and y is not seen.inputs[0]:
            return seen.inputs[0].copy_(y)
        if not isinstance(seen, Selection) or seen.arrange(y, None) is y:
            return y
        return seen.arrange(y, seen.output(*seen.inputs)[1])

    @property
    def is_affine(self) -> bool:
        """Whether `affine_parts` has it; batch_norm under other names has its arguments in another order."""
        return self.op in AFFINE and (self.op != "batch_norm" or self.func is torch.nn.functional.batch_norm)

    def affine_parts(self) -> tuple[dict, dict]:
        """The arguments by name of a call that is affine in its input, and of its part without an offset."""
        given = {"bias": None} | dict(zip(AFFINE[self.op], self.args, strict=False)) | self.kwargs
        offsets = {key: None if part is None or key == "bias" else torch.zeros_like(part)
                   for key, part in given.items() if key in ("bias", "running_mean")}
        return given, given | offsets

    def refuse_random(self) -> None:
        """Refuse a call that draws random numbers."""
        if self.op in RANDOM:
            given = dict(zip(("input", "p", "training"), self.args, strict=False)) | self.kwargs
            if given.get("p", 0.5) > 0 and given.get("training", given.get("train", True)):
                raise refusal("random", self.place)


class Opening(TorchFunctionMode):
    """A mode that sees the calls inside torch's functions that are written in Python, and inside recurrent layers."""

    def __init__(self):
        super().__init__()
        self._running: list[Callable] = []

    def inside(self, func: Callable) -> Callable | None:
        """What to call instead of a function, so that the calls inside it are seen; None where it is one call."""
        found = _opened(func)
        # A method that calls its parent's under the same name meets itself here: then it is one call.
        if found is None or func in self._running:
            return None

        def call(*args, **kwargs):
            self._running.append(func)
            try:
                with self:
                    return found(*args, **kwargs)
            finally:
                self._running.pop()

        return call


class Interpreter(Opening):
    """Follows the calls of one forward pass; a subclass says in `call` what becomes of each.

    Attributes
    ----------
    scope
        Says which module is running.
    names
        Names the calls that can switch, as they are met.
    """

    kind_of_call = Call

    def __init__(self, scope: Scope):
        super().__init__()
        self.scope, self.names = scope, CallNames()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.call(self.kind_of_call(func, args, kwargs or {}, self.scope.path))

    def call(self, call: Call):
        """The result of a call."""
        raise NotImplementedError

    def opened(self, call: Call):
        """The result of a call, with those inside it seen."""
        return (self.inside(call.func) or call.func)(*call.args, **call.kwargs)


def _opened(func: Callable) -> Callable | None:
    """A function whose inner calls are seen, for one of torch that is written in Python or recurrent; else None."""
    if not isinstance(func, types.FunctionType):
        return UNROLLED.get(getattr(func, "__name__", ""))
    if func not in _OPENED:
        found = None
        if any(name in func.__globals__ for name in _HAS):
            inner = {**func.__globals__, **dict.fromkeys(_HAS, _never)}
            found = types.FunctionType(func.__code__, inner, func.__name__, func.__defaults__, func.__closure__)
            found.__kwdefaults__ = func.__kwdefaults__
        _OPENED[func] = found
    return _OPENED[func]


def _never(*_):
    return False


class _Answered(Interpreter):
    """As `watched` has it."""

    def __init__(self, scope: Scope, answer: Callable, beside: Callable | None):
        super().__init__(scope)
        self.answer, self.beside, self.channels = answer, beside, 1

    def call(self, call: Call):
        self.channels = _CHANNELS_AT.get(call.op, self.channels)
        if call.op in TABLE:
            call.number, call.channels = self.names.number(call.path, call.op), self.channels
            return self.answer(call)
        if self.beside is not None and call.op in UNFOLLOWED:
            self.beside(call)
        # Layers with weights are one call to whatever measurement looks on.
        return call.plain() if call.op in _CHANNELS_AT else self.opened(call)


@contextmanager
def watched(model, answer: Callable[[Call], object], beside: Callable[[Call], None] | None = None) -> Iterator[None]:
    """While this is open, one forward pass of ``model`` takes the result of each call that can switch from ``answer``.

    Parameters
    ----------
    beside
        Told of each call that switches and that the table does not describe.
    """
    scope = Scope(model)
    with eagerly(), scope(), _Answered(scope, answer, beside):
        yield
