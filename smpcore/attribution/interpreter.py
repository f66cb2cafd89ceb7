"""Run a model and see every unit that can switch, whatever it is called by.

`Watch` is an `inspection.calls.Interpreter` around one forward pass with a tangent (forward-mode AD). Operations of
`units.TABLE` are handed to an observer; tangents of convolutions and linear layers are taken by hand, which halves
their cost; what switches and is not followed leaves a mark on its result, which travels to whatever depends on it.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

from smpcore.inspection.calls import Call, Interpreter, tensors_in
from smpcore.inspection.module_scope import Scope, in_custom_function
from smpcore.inspection.operations import FORM_OF, ON_NO_SIDE, TAKES_OUT, takes_form_alone
from smpcore.inspection.refusals import refusal, sentence
from smpcore.units import TABLE, UNFOLLOWED, Selection, Steps, moves, unfollowed

__all__ = ["Watch", "mark_of", "spikes_as_steps"]

# Where ``dim`` stands in what gives several views of one tensor.
_SEVERAL_VIEWS = {"split": 2, "split_with_sizes": 2, "tensor_split": 2, "chunk": 2, "unbind": 1}
_MODES = {"_set_grad_enabled", "set_grad_enabled"}


class Watch(Interpreter):
    """Sees every call of one forward pass; use within `forward_ad.dual_level()`.

    Parameters
    ----------
    observe
        ``observe(layer, description, edge, output)`` for each call that can switch: the layer's name, what
        `units.describe` says of it, where in the graph its gains are found, and the output's values.
    scope
        Says which module is running.
    apart
        Keep each unit's input and output apart from what the model goes on to write into: slower, and needed only
        where the model overwrites what its backward pass reads.
    forward
        Whether no backward pass follows: nothing is kept for it, and units have no place in a graph.
    """

    def __init__(self, observe: Callable, scope: Scope, apart: bool = False, forward: bool = False):
        super().__init__(scope)
        self.observe, self.apart, self.forward = observe, apart, forward
        self.place = "model"

    def call(self, call: Call):
        # Inside a custom function's forward both modes are off, and its own derivatives count.
        wanted = torch.is_grad_enabled() or (self.forward and not torch.is_inference_mode_enabled())
        if wanted or call.op in _MODES or in_custom_function():
            return self._followed(call)
        # Where the model turns gradients off, gains would be 0 without a word, and slopes in inference mode.
        with torch.inference_mode(False), torch.set_grad_enabled(not self.forward):
            return self._followed(call)

    def _followed(self, call: Call):
        op, tensors, self.place = call.op, call.tensors, call.place
        of_data = call.attribute == "data"
        replaced = of_data and op == "__set__"
        if any(moves(tensor) for tensor in tensors if replaced or type(tensor) not in (Tensor, nn.Parameter)):
            raise refusal("data", self.place)
        if replaced or (call.attribute and not of_data):
            return _marked(call.plain(), tensors)
        moving = any(moves(tensor) for tensor in tensors if tensor.is_floating_point())
        if moving and op in TABLE:
            return _marked(self._unit(call), tensors)
        if op in TAKES_OUT and (moving or any(mark_of(tensor) for tensor in tensors)):
            warnings.warn(sentence("reads", self.place), stacklevel=4)
            # Detach: Python reads a plain number.
            args, kwargs = tree_map_only(Tensor, Tensor.detach, (call.args, call.kwargs))
            return call.func(*args, **kwargs)
        if moving and call.is_affine:
            result = self._affine(call)
        elif of_data or op == "detach" or (op == "view" and moving and tensors[0].dtype in (
                *call.args[1:], *call.kwargs.values())):
            # The value goes on, and its slope with it.
            result = tensors[0].view_as(tensors[0])
        else:
            call.refuse_random()
            result = self.opened(call)
            if moving and op in _SEVERAL_VIEWS:
                result = _one_by_one(call, result)
        if moving and not (op in FORM_OF and not moves(tensors[0])):
            self._check(call, result)
        if call.overwrites and tensors:
            _marked([part for part in (tensors[0], tensors[0]._base) if part is not None], tensors)
        return _marked(result, tensors)

    def _check(self, call: Call, result) -> None:
        """Mark what depends on a switch that is not followed."""
        advice = unfollowed(call.op, call.args, call.kwargs)
        if advice is None and call.op not in ON_NO_SIDE and not takes_form_alone(call.op) and any(
                not part.is_floating_point() and not part.is_complex() for part in tensors_in(result)):
            advice = UNFOLLOWED["gt"]
        if advice is not None:
            _mark(result, sentence("depends", self.place, advice=advice))

    def _affine(self, call: Call):
        """The output of what is affine in its input; its slope is the same without an offset, in one call more."""
        given, linear = call.affine_parts()
        if given.get("training"):
            raise refusal("by the batch", call.path)
        if [id(part) for part in call.tensors if moves(part)] != [id(given["input"])]:
            return call.plain()
        value, slope = forward_ad.unpack_dual(given["input"])
        with torch.no_grad():
            slope = call.func(**(linear | {"input": slope.detach()}))
        return forward_ad.make_dual(call.func(**(given | {"input": value})), slope)

    def _unit(self, call: Call):
        layer = self.names.new(call.path, call.op)
        try:
            seen = call.describe()
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from None
        if seen is None:
            return call.plain()
        out, where = self._switching(layer, seen)
        result = out if where is None else seen.arrange(out, where)
        if where is not None and result is not out:
            _mark([part for part in result if not part.is_floating_point()],
                  sentence("indices", layer, advice=UNFOLLOWED["gt"]))
        if call.in_place:
            return call.tensors[0].copy_(out)
        if call.kwargs.get("out") is not None:
            raise refusal("out", layer)
        return result

    def _switching(self, layer: str, seen):
        """The output of a unit, with its slope, and the winners of one that selects."""
        inputs = tuple(part.clone() for part in seen.inputs) if self.apart else seen.inputs
        found = seen.output(*inputs)
        y, where = found if isinstance(seen, Selection) else (found, None)
        if where is not None and len(inputs) == 2:
            # torch halves the derivative between two that are equal; switches are read by the winner's.
            y = torch.where(where.bool(), inputs[1], inputs[0])
        value, slope = forward_ad.unpack_dual(y)
        if not value.requires_grad and not self.forward:
            value = value.detach().requires_grad_()
        edge = None if self.forward else torch.autograd.graph.get_gradient_edge(value)
        out = value.clone() if self.apart or (value.is_leaf and not self.forward) else value
        self.observe(layer, seen, edge, value.detach(), where)
        return forward_ad.make_dual(out, torch.zeros_like(value) if slope is None else slope.detach()), where

    def spike(self, name: str, x: Tensor, level: Callable) -> Tensor:
        """The output of a custom autograd function that is 0 or 1: a step, whatever its surrogate derivative."""
        with torch._C.DisableTorchFunction():
            if not moves(x):
                return level(x)
            seen = Steps("spike", x, level, lambda x: level(x) + 0 * x)
            return self._switching(self.names.new(self.scope.path, name), seen)[0]


@contextmanager
def spikes_as_steps(unit: Callable, other: Callable) -> Iterator[None]:
    """Hand custom autograd functions whose outputs are 0 or 1 to ``unit(name, x, level)``, x their input.

    ``level(x)`` computes the output, in the type of x and without derivatives. All other custom functions run as ever,
    and ``other(name)`` is told of those on what depends on the path.
    """
    own = torch.autograd.Function.__dict__["apply"]

    def apply(cls, *args, **kwargs):
        run = own.__get__(None, cls)
        place = next((n for n, part in enumerate(args) if isinstance(part, Tensor)), None)
        if place is None or not args[place].is_floating_point() or in_custom_function():
            return run(*args, **kwargs)

        def plain(x):
            with torch.no_grad(), torch._C.DisableTorchFunction(), _disable_current_modes():
                given = tree_map_only(Tensor, lambda part: forward_ad.unpack_dual(part).primal.detach(),
                                      (*args[:place], x, *args[place + 1:]))
                return run(*given, **kwargs)

        x = args[place]
        found = plain(x)
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            spikes = isinstance(found, Tensor) and found.shape == x.shape and bool((found * (found - 1) == 0).all())
            if not spikes and any(moves(part) for part in tensors_in(args) if part.is_floating_point()):
                other(cls.__name__)
        if spikes:
            return unit(cls.__name__, x, lambda x: plain(x).to(x.dtype))
        return run(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)
    try:
        yield
    finally:
        torch.autograd.Function.apply = own


def _one_by_one(call: Call, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same views, each by a call of its own: autograd lets nothing be written into views made together."""
    x, at = call.tensors[0], _SEVERAL_VIEWS[call.op]
    dim = call.kwargs.get("dim", call.args[at] if len(call.args) > at else 0)
    if call.op == "unbind":
        return tuple(x.select(dim, n) for n in range(len(parts)))
    ends = itertools.accumulate((part.shape[dim] for part in parts), initial=0)
    return tuple(x.narrow(dim, start, part.shape[dim]) for start, part in zip(ends, parts, strict=False))


def mark_of(tensor: Tensor) -> str | None:
    """Why a tensor cannot be trusted: the sentence of what switches, unfollowed, on the way to it."""
    return getattr(tensor, "_smp_unfollowed", None)


def _mark(result, why: str) -> None:
    for part in tensors_in(result):
        part._smp_unfollowed = why


def _marked(result, tensors):
    why = next((mark_of(tensor) for tensor in tensors if mark_of(tensor)), None)
    if why:
        _mark(result, why)
    return result

