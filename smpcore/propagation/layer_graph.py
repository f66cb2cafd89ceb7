"""A model as a list of steps: the calls that it makes on inputs of one shape.

A copy of the model runs on a tensor of torch's that has a shape and no numbers, so that whatever code it consists of is
read, and none of its behaviour. `steps` names each call that can switch as the measurement side does:
``module.path:operation``, with ``#2``, ``#3`` for later calls of the same. `Calls` finds the same calls again when the
model runs on numbers.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves

from smpcore.arguments import home_of, refuse_training
from smpcore.inspection.calls import Call, Interpreter
from smpcore.inspection.elementwise_modules import ElementwiseModule, elementwise
from smpcore.inspection.module_scope import CallNames, Scope, call_name, call_site, eagerly
from smpcore.units import TABLE, Hinges, describe
from smpcore.units.elementwise import ELEMENTWISE

__all__ = ["Calls", "Step", "elementwise_modules", "known_layers", "steps"]


@dataclass
class Step:
    """One call.

    Attributes
    ----------
    op
        What it does: ``"unit"``, or an operation of `_FUNCTIONS`; ``""`` where there is no rule for it.
    inputs
        Numbers of the steps it reads.
    name
        ``module.path:operation``.
    shape
        Of its output, without the batch.
    settings
        What else it was called with, weights included.
    kind
        In words, as the measurement says it.
    switches
        Whether the measurement lists it.
    describe
        Of a unit: from its inputs ``(n, channels, ...)`` to `units.Hinges`.
    channels
        Of a unit: how many have settings of their own; 1 where all are alike.
    seen
        Of a unit: ``describe`` of one number for each channel.
    call
        By which `Calls` finds it again.
    """

    op: str
    inputs: list[int]
    name: str
    shape: torch.Size = torch.Size([])  # noqa: RUF009  (it cannot change)
    settings: dict = field(default_factory=dict)
    kind: str = ""
    switches: bool = False
    describe: Callable[[Tensor], Hinges] | None = None
    channels: int = 1
    seen: Hinges | None = None
    call: str = ""


_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
#: Functions and methods by the name torch calls them: the operation and its further arguments in order. Elementwise
#: ones need no row: they stand in the table of units.
_FUNCTIONS = {
    "linear": ("linear", ("weight", "bias")),
    "conv1d": ("conv", _CONV),
    "conv2d": ("conv", _CONV),
    "batch_norm": ("batch norm", ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")),
    "max_pool1d": ("max pool", (*_POOL, "return_indices")),
    "max_pool2d": ("max pool", (*_POOL, "return_indices")),
    "avg_pool1d": ("average pool", _AVERAGE),
    "avg_pool2d": ("average pool", _AVERAGE),
    "adaptive_avg_pool1d": ("adaptive average pool", ("output_size",)),
    "adaptive_avg_pool2d": ("adaptive average pool", ("output_size",)),
    "interpolate": ("upsample", ("size", "scale_factor", "mode", "align_corners")),
    "pad": ("pad", ("pad", "mode", "value")),
    "mean": ("mean", ("dim", "keepdim")),
    "add": ("sum", ("other",)),
    "dropout": ("identity", ("p", "training", "inplace")),
}
#: Functions that arrange the numbers of one tensor anew; those that keep their order flatten, where all but the batch
#: becomes one dimension.
_KEEPS_ORDER = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten"}
_ARRANGE = _KEEPS_ORDER | {"permute", "transpose", "movedim", "__getitem__", "split", "chunk", "unbind"}
#: Functions that do nothing to the numbers.
_SAME = {"contiguous", "to", "double", "clone"}
_ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward", "softmax", "matmul", "bmm", "baddbmm",
              "_transformer_encoder_layer_fwd", "einsum"}
_NEITHER = ("__get__", "__set__", "size", "dim", "numel", "__len__")
#: Other spellings of one operation.
_ALIASES = {"__add__": "add", "__add": "add", "__radd__": "add"}


def known_layers() -> list[str]:
    """Names of the layers and operations that have a rule."""
    words = {name.replace("_", "") for name in {*ELEMENTWISE, *_FUNCTIONS}}
    modules = {name for name in dir(nn) if name[0].isupper() and name.lower() in words}
    modules |= {"BatchNorm1d", "BatchNorm2d", "Flatten", "Identity", "Upsample"}
    return sorted(modules) + sorted({*_FUNCTIONS, *(set(TABLE) & set(ELEMENTWISE)), "flatten"})


class Calls(Interpreter):
    """Sees the calls of a model that depend on its input, elementwise modules as one call each.

    Parameters
    ----------
    model
        Its elementwise modules are changed for good: give a copy.
    units
        The paths of these modules.
    made
        ``made(call, path, word, given, args, kwargs, run)`` gives a call's result. ``call`` is its own name; ``path``
        the module's, and ``word`` the operation's, empty for an elementwise module; ``given`` are the tensors among
        ``args`` and ``kwargs`` that depend on the input, with the call that made each; ``run()`` computes.
    """

    def __init__(self, model: nn.Module, units, made: Callable):
        super().__init__(Scope(model))
        self.model, self.made = model, made
        for path in units:
            module = model.get_submodule(path)
            module.forward = self._as_one(path, module.forward)

    def run(self, x: Tensor):
        """What the model returns."""
        self.depends, self.names, self.in_unit, self.place = {id(x): (x, "")}, CallNames(), False, "model"
        with eagerly(), self.scope(), self:
            return self.model(x)

    def _as_one(self, path: str, forward: Callable) -> Callable:
        def run(*args, **kwargs):
            if self.in_unit:
                return forward(*args, **kwargs)
            self.in_unit = True
            try:
                return self._called(path, "", args, kwargs, lambda: forward(*args, **kwargs))
            finally:
                self.in_unit = False

        return run

    def call(self, call: Call):
        word, args, kwargs = _ALIASES.get(call.op, call.op), call.args, call.kwargs
        if self.in_unit or word in _NEITHER:
            return call.plain()
        known = any(word in each for each in (_FUNCTIONS, TABLE, _ARRANGE, _SAME, _ATTENTION))
        inside = None if known else self.inside(call.func)
        if inside is not None:
            return inside(*args, **kwargs)
        if not (call.overwrites and args and self._moves(args[0])):
            return self._called(call.path, word, args, kwargs, call.plain)
        if args[0]._base is not None:
            raise ValueError(f"{call.path}:{word} writes into a part of another tensor, which has no rule to "
                             "predict it: make a new tensor there")
        # Into a copy, written back, so that what came before is left as it was.
        target = args[0]
        found = self._called(call.path, word, args, kwargs, lambda: call.func(target.clone(), *args[1:], **kwargs))
        self.depends[id(target)] = target, self.depends[id(found)][1]
        return target.copy_(found)

    def _moves(self, part) -> bool:
        return isinstance(part, Tensor) and id(part) in self.depends

    def _called(self, path: str, word: str, args, kwargs, run: Callable):
        given = [self.depends[id(part)] for part in tree_leaves((args, kwargs)) if self._moves(part)]
        if not given:
            # Whatever does not depend on the input has its numbers.
            with unset_fake_temporarily():
                return run()
        self.place, call = call_name(path, word, 1), self.names.new(path, word)
        found = self.made(call, path, word, given, args, kwargs, run)
        self.depends |= {id(part): (part, call) for part in tree_leaves(found) if isinstance(part, Tensor)}
        return found


def elementwise_modules(model: nn.Module) -> dict[str, ElementwiseModule]:
    """The elementwise modules of a model by their path, whoever wrote them."""
    found = {path: elementwise(module) for path, module in model.named_modules(remove_duplicate=False) if path}
    return {path: unit for path, unit in found.items() if unit is not None}


def steps(model: nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """The calls of a model in order of execution; the first is its input of that shape, the last its output.

    Raises
    ------
    TypeError
        For anything but a module.
    ValueError
        For a module in training mode that is not a function of its input there, for code that decides by its
        numbers what to compute, inputs that do not fit, and a layer or operation without a rule, with those that have
        one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a torch.nn.Module, whose layers are read, not {type(model).__name__}")
    refuse_training(model)
    reader = _Reader(model)
    found = reader.read(shape)
    return _without_the_unneeded(found)


class _Reader:
    """Makes a step of each call."""

    def __init__(self, model: nn.Module):
        self.model, self.units, self.names = model, elementwise_modules(model), CallNames()
        own = copy.deepcopy(model).double().requires_grad_(False)
        for module in own.modules():
            module._forward_hooks.clear()
        self.calls = Calls(own, self.units, self.made)

    def read(self, shape: tuple[int, ...]) -> list[Step]:
        self.found, self.of_call = [Step("input", [], "input", torch.Size(shape))], {"": 0}
        place = home_of(self.model, torch.empty(0))
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                output = self.calls.run(torch.empty(2, *shape, dtype=torch.float64, device=place))
        except _Refused as error:
            raise ValueError(str(error)) from error.__cause__
        except Exception as error:
            raise ValueError(f"the layers of {type(self.model).__name__} cannot be read from its code ("
                             f"{self.calls.place}: {str(error).splitlines()[0]}): a prediction needs a model that "
                             "always calls the same layers in the same order, whatever its numbers are") from error
        if not isinstance(output, Tensor):
            raise ValueError(f"the model returns more than one tensor ({type(output).__name__}): wrap it in a module "
                             "that returns the output to predict, (P, m)")
        if id(output) not in self.calls.depends:
            raise ValueError("the model's output does not depend on its input")
        last = self.of_call[self.calls.depends[id(output)][1]]
        return [*self.found, Step("output", [last], "output", output.shape[1:])]

    def made(self, call, path, word, given, args, kwargs, run):
        before = given[0][0].shape
        try:
            found = run()
        except RuntimeError as error:
            if isinstance(error, NotImplementedError) or not (word in _FUNCTIONS or word in TABLE or not word):
                raise
            raise _Refused(f"{path}:{word or self.units[path].name} does not take what it gets, of shape "
                           f"{tuple(before[1:])} for each input: {str(error).splitlines()[0]}") from error
        inputs = [self.of_call[each] for _, each in given]
        with unset_fake_temporarily():
            step = self._function(path, word, given, args, kwargs, before, found) if word else self._module(path)
        if any(isinstance(part, Tensor) for part in tree_leaves(found)):
            step.name = self.names.new(*step.name.rsplit(":", 1))
            step.inputs, step.call = inputs if step.op in ("sum", "") else inputs[:1], call
            step.shape = found.shape[1:] if isinstance(found, Tensor) else torch.Size()
            self.of_call[call] = len(self.found)
            self.found.append(step)
        return found

    def _module(self, path: str) -> Step:
        unit = self.units[path]
        joint = "." if ":" in unit.name else ":"
        return self._unit(f"{path}{joint}{unit.name}", unit.describe, unit.channels, unit.switches, unit.kind)

    def _function(self, path, word, given, args, kwargs, before, found) -> Step:
        name = f"{path}:{word}"
        first = next((key for key in ("input", "self", "x") if key in kwargs), None)
        names = _FUNCTIONS.get(word, (None, ()))[1]
        rest = args[1:] if first is None else args
        settings = {key: part.detach().double() if isinstance(part, Tensor) and type(part) is not FakeTensor else part
                    for key, part in [*zip(names or map(str, range(len(rest))), rest, strict=False),
                                      *((key, part) for key, part in kwargs.items() if key != first)]}
        if word in _ARRANGE or word in _SAME:
            if not isinstance(found, Tensor) or not found.dim() or len(found) != 2:
                return Step("", [], f"{name} that parts the batch")
            kept = word in _SAME or (word in _KEEPS_ORDER and found.shape == before)
            flat = word in _KEEPS_ORDER and tuple(found.shape[1:]) == (before[1:].numel(),)
            return Step("identity" if kept else "flatten" if flat else "rearrange", [], name)
        if word in ELEMENTWISE or (word in TABLE and word not in _FUNCTIONS):
            return self._table_unit(name, word, rest, settings, len(given))
        if word not in _FUNCTIONS:
            return Step("", [], name)
        op = _FUNCTIONS[word][0]
        if word == "dropout" and settings.get("training", True):
            raise _Refused(f"{name} draws at random: call it with training=self.training, and model.eval()")
        if op == "sum" and (len(given) != 2 or given[0][0].shape != given[1][0].shape or settings.get("alpha", 1) != 1):
            return Step("", [], f"{name} of anything but two layers' outputs of one shape")
        if op == "max pool" and settings.pop("return_indices", False):
            return Step("", [], f"{name} with its indices")
        return Step(op, [], name, settings=settings, kind=op, switches=op == "max pool")

    def _table_unit(self, name: str, word: str, rest: tuple, settings: dict, given: int) -> Step:
        """A unit of the table called as a function, its weights looked up."""
        parts = list(settings.items())
        if given > 1 or any(isinstance(part, FakeTensor) for _, part in parts):
            return Step("", [], f"{name} of several computed tensors")
        args, named = [part for _, part in parts[:len(rest)]], dict(parts[len(rest):])

        def described(x: Tensor) -> Hinges:
            placed = [part.to(x) if isinstance(part, Tensor) else part for part in args]
            return describe(word, (x, *placed), {key: part.to(x) if isinstance(part, Tensor) else part
                                                 for key, part in named.items()}, smooth=True)

        size = max((part.numel() for _, part in parts if isinstance(part, Tensor)), default=1)
        seen = described(torch.zeros(1, size, dtype=torch.float64))
        if not isinstance(seen, Hinges):
            return Step("", [], name)
        return self._unit(name, described, size, bool(seen.hinges), seen.kind)

    def _unit(self, name: str, described: Callable, channels: int, switches: bool, kind: str) -> Step:
        x = torch.zeros(1, channels, dtype=torch.float64)
        return Step("unit", [], name, kind=kind, switches=switches, describe=described, channels=channels,
                    seen=described(x.to(home_of(self.model, x))))


class _Refused(ValueError):
    """Said while the model runs, to be told apart from what its own code raises."""


def _without_the_unneeded(found: list[Step]) -> list[Step]:
    """What the output depends on: heads that are left out need no rule.

    Of what has none, attention is named first.
    """
    needed = {0, len(found) - 1}
    for n in range(len(found) - 1, 0, -1):
        if n in needed:
            needed.update(found[n].inputs)
    unknown = [found[n] for n in sorted(needed) if not found[n].op]
    for step in unknown:
        if call_site(step.name).split(":")[-1] in _ATTENTION:
            raise ValueError(
                f"{step.name} is a part of attention, which has no rule to predict it: what it passes on is a product "
                "of maps that all depend on the input, so its kinks follow from joint moments of queries, keys and "
                "values at all positions; attribute measures such a model, trace_line and smp as well")
    if unknown:
        raise ValueError(f"{unknown[0].name} has no rule to predict it; those that have one: "
                         f"{', '.join(known_layers())}")
    place = {n: at for at, n in enumerate(sorted(needed))}
    for n in place:
        found[n].inputs = [place[each] for each in found[n].inputs]
    return [found[n] for n in place]
