"""Run a model and see every unit that can switch, whatever it is called by.

`Watch` is a `TorchFunctionMode` around one forward pass with a tangent (forward-mode AD). Operations of
`units.TABLE` are handed to an observer; tangents of convolutions and linear layers are taken by hand, which
halves their cost; what switches and is not followed leaves a mark on its result, which travels to whatever
depends on it.
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

from smpcore.inspection.module_scope import CallNames, Opening, Scope, in_custom_function
from smpcore.inspection.opaque_ops import FORM_OF, TAKES_OUT
from smpcore.units import table as switches

__all__ = ["Watch", "mark_of", "spikes_as_steps"]

_CONV = ("input", "weight", "bias", "stride", "padding")
#: Affine in their input, with their arguments in order.
_AFFINE = {"linear": _CONV[:3],
           "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
           **{f"conv{n}d": (*_CONV, "dilation", "groups") for n in (1, 2, 3)},
           **{f"conv_transpose{n}d": (*_CONV, "output_padding", "groups", "dilation") for n in (1, 2, 3)}}
_DROPOUT = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
            "feature_dropout"}
# Results that are no floating tensor, yet say nothing of which side a unit is on.
_HARMLESS = {"isnan", "isinf", "isfinite", "size", "dim", "numel", "is_floating_point", "is_complex", "stride",
             "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty",
             "new_tensor", "rand_like", "randn_like"}
# Where ``dim`` stands in what gives several views of one tensor.
_SEVERAL_VIEWS = {"split": 2, "split_with_sizes": 2, "tensor_split": 2, "chunk": 2, "unbind": 1}
_MODES = {"_set_grad_enabled", "set_grad_enabled"}


class Watch(Opening):
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
        super().__init__()
        self.observe, self.scope, self.apart, self.forward = observe, scope, apart, forward
        self.names = CallNames()
        self.place = "model"

    def __torch_function__(self, func, types_, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, in_place = switches.canonical(func)
        # Inside a custom function's forward both modes are off, and its own derivatives count.
        if self.forward or torch.is_grad_enabled() or name in _MODES or in_custom_function():
            return self._call(func, name, in_place, args, kwargs)
        # Where the model turns gradients off, gains would be 0 without a word.
        with torch.inference_mode(False), torch.enable_grad():
            return self._call(func, name, in_place, args, kwargs)

    def _call(self, func, name, in_place, args, kwargs):
        tensors = _tensors((args, kwargs))
        self.place = f"{self.scope.path}:{name}"
        of_data = name in ("__get__", "__set__") and getattr(func.__self__, "__name__", "") == "data"
        replaced = of_data and name == "__set__"
        if any(switches.moves(tensor) for tensor in tensors
               if replaced or type(tensor) not in (Tensor, nn.Parameter)):
            raise ValueError(f"{self.place} meets a tensor whose data or class was replaced, behind which slopes are "
                             "not followed (x.data = …, x.as_subclass(…)): write x = …, and hand on plain tensors")
        if of_data:
            name = "detach"
        elif name in ("__get__", "__set__"):
            return _marked(func(*args, **kwargs), tensors)
        moving = any(switches.moves(tensor) for tensor in tensors if tensor.is_floating_point())
        if moving and name in switches.TABLE:
            mark = next((mark_of(tensor) for tensor in tensors if mark_of(tensor)), None)
            result = self._unit(func, name, in_place, args, kwargs)
            if mark:
                _mark(result, mark)
            return result
        if name in TAKES_OUT and (moving or any(mark_of(tensor) for tensor in tensors)):
            warnings.warn(f"{self.place}: the model reads a number out of a tensor that depends on the path; if it "
                          "decides what is computed, what switches there is not counted", stacklevel=3)
            # Its number, not its derivatives.
            args, kwargs = tree_map_only(Tensor, torch.Tensor.detach, (args, kwargs))
            return func(*args, **kwargs)
        # torch.batch_norm has its arguments in another order, and a derivative of its own.
        if moving and name in _AFFINE and func is not torch.batch_norm:
            result = self._affine(func, name, args, kwargs)
        elif name == "detach":
            # The value goes on, and its slope with it.
            result = args[0].view_as(args[0])
        else:
            if name in _DROPOUT:
                self._check_dropout(args, kwargs)
            result = (self.inside(func) or func)(*args, **kwargs)
            if moving and name in _SEVERAL_VIEWS:
                result = _one_by_one(name, tensors[0], args, kwargs, result)
        if moving and not (name in FORM_OF and not switches.moves(tensors[0])):
            self._check(name, args, kwargs, result, tensors)
        _marked(result, tensors)
        if in_place and args and isinstance(args[0], Tensor):
            _marked(args[0], tensors)
            if args[0]._base is not None:
                _marked(args[0]._base, tensors)
        return result

    def _check(self, name, args, kwargs, result, tensors):
        """Mark what depends on a switch that is not followed."""
        advice = switches.unfollowed(name, args, kwargs)
        if advice is None and name not in _HARMLESS and any(
                not part.is_floating_point() and not part.is_complex() for part in _tensors(result)):
            advice = switches.UNFOLLOWED["gt"]
        if advice is not None:
            _mark(result, f"{self.place} switches, and the output depends on it: {advice}")

    def _affine(self, func, name, args, kwargs):
        """The output of what is affine in its input; its slope is the same without an offset, in one call more."""
        given = {"bias": None} | dict(zip(_AFFINE[name], args, strict=False)) | kwargs
        if given.get("training"):
            raise ValueError(f"{self.scope.path} normalises by the batch, so the output is not a function of t: "
                             "call model.eval() first, and keep running statistics")
        x = given.pop("input")
        if not switches.moves(x) or any(switches.moves(part) for part in _tensors(given)):
            return func(*args, **kwargs)
        value, slope = forward_ad.unpack_dual(x)
        offsets = {key: None if part is None or key == "bias" else torch.zeros_like(part)
                   for key, part in given.items() if key in ("bias", "running_mean")}
        with torch.no_grad():
            slope = func(slope.detach(), **(given | offsets))
        return forward_ad.make_dual(func(value, **given), slope)

    def _check_dropout(self, args, kwargs):
        p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        if kwargs.get("training", args[2] if len(args) > 2 else True) and p > 0:
            raise ValueError(f"{self.scope.path} drops units at random, so the output is not a function of t: "
                             "call model.eval() first")

    def _unit(self, func, name, in_place, args, kwargs):
        layer = self.names.new(self.scope.path, name)
        try:
            seen = switches.describe(name, args, kwargs)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from None
        if seen is None:
            return func(*args, **kwargs)
        out, where = self._switching(layer, seen)
        result = out if where is None else seen.arrange(out, where)
        if where is not None and result is not out:
            _mark([part for part in result if not part.is_floating_point()],
                  f"the indices of {layer} switch, and the output depends on them: {switches.UNFOLLOWED['gt']}")
        target = kwargs.get("input", args[0] if args else None)
        if in_place or switches.in_place(name, args, kwargs):
            target.copy_(out)
            return target
        if kwargs.get("out") is not None:
            raise ValueError(f"{layer} writes into out=…, which is not followed: assign its result instead")
        return result

    def _switching(self, layer: str, seen):
        """The output of a unit, with its slope, and the winners of one that selects."""
        inputs = tuple(part.clone() for part in seen.inputs) if self.apart else seen.inputs
        found = seen.output(*inputs)
        y, where = found if isinstance(seen, switches.Selection) else (found, None)
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
            if not switches.moves(x):
                return level(x)
            seen = switches.Steps("spike", x, level, lambda x: level(x) + 0 * x)
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
            if not spikes and any(switches.moves(part) for part in _tensors(args) if part.is_floating_point()):
                other(cls.__name__)
        if spikes:
            return unit(cls.__name__, x, lambda x: plain(x).to(x.dtype))
        return run(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)
    try:
        yield
    finally:
        torch.autograd.Function.apply = own


def _one_by_one(name: str, x: Tensor, args, kwargs, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same views, each by a call of its own: autograd lets nothing be written into views made together."""
    dim = kwargs.get("dim", args[_SEVERAL_VIEWS[name]] if len(args) > _SEVERAL_VIEWS[name] else 0)
    if name == "unbind":
        return tuple(x.select(dim, n) for n in range(len(parts)))
    ends = itertools.accumulate((part.shape[dim] for part in parts), initial=0)
    return tuple(x.narrow(dim, start, part.shape[dim]) for start, part in zip(ends, parts, strict=False))


def mark_of(tensor: Tensor) -> str | None:
    """Why a tensor cannot be trusted: the sentence of what switches, unfollowed, on the way to it."""
    return getattr(tensor, "_smp_unfollowed", None)


def _mark(result, sentence: str) -> None:
    for part in _tensors(result):
        part._smp_unfollowed = sentence


def _marked(result, tensors):
    sentence = next((mark_of(tensor) for tensor in tensors if mark_of(tensor)), None)
    if sentence:
        _mark(result, sentence)
    return result


def _tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
