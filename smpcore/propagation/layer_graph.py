"""A model as a list of steps, read from its code with `torch.fx`: no number goes through it.

`steps` names each call that can switch as the measurement side does: ``module.path:operation``, with ``#2``,
``#3`` for later calls of the same.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from smpcore.inspection.checks import home_of, refuse_training
from smpcore.inspection.elementwise_modules import ElementwiseModule, elementwise
from smpcore.inspection.module_scope import CallNames
from smpcore.units import TABLE, Hinges, canonical, describe
from smpcore.units.elementwise import ELEMENTWISE

__all__ = ["Step", "known_layers", "read_graph", "steps"]


@dataclass
class Step:
    """One call.

    Attributes
    ----------
    op
        What it does: ``"unit"``, or an operation of `_MODULES` or `_FUNCTIONS`.
    inputs
        Numbers of the steps it reads.
    name
        ``module.path:operation``.
    module
        With its weights, where it is one.
    settings
        What else it was called with.
    node
        Its name in the traced graph.
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
    """

    op: str
    inputs: list[int]
    name: str
    module: nn.Module | None = None
    settings: dict = field(default_factory=dict)
    node: str = ""
    kind: str = ""
    switches: bool = False
    describe: Callable[[Tensor], Hinges] | None = None
    channels: int = 1
    seen: Hinges | None = None


_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_RESIZE = ("size", "scale_factor", "mode", "align_corners")
#: Modules that have a rule: the operation, the word for it in a name, and the settings read off the module.
#: Elementwise ones need no row: `inspection.elementwise_modules` finds their unit.
_MODULES = {
    nn.Linear: ("linear", "linear", ()),
    nn.Conv1d: ("conv", "conv1d", ()),
    nn.Conv2d: ("conv", "conv2d", ()),
    nn.BatchNorm1d: ("batch norm", "batch_norm", ()),
    nn.BatchNorm2d: ("batch norm", "batch_norm", ()),
    nn.MaxPool1d: ("max pool", "max_pool1d", _POOL),
    nn.MaxPool2d: ("max pool", "max_pool2d", _POOL),
    nn.AvgPool1d: ("average pool", "avg_pool1d", _AVERAGE),
    nn.AvgPool2d: ("average pool", "avg_pool2d", _AVERAGE),
    nn.AdaptiveAvgPool1d: ("adaptive average pool", "adaptive_avg_pool1d", ("output_size",)),
    nn.AdaptiveAvgPool2d: ("adaptive average pool", "adaptive_avg_pool2d", ("output_size",)),
    nn.Upsample: ("upsample", "upsample", _RESIZE),
    nn.Flatten: ("flatten", "flatten", ("start_dim", "end_dim")),
    nn.Identity: ("identity", "identity", ()),
    nn.modules.dropout._DropoutNd: ("identity", "dropout", ()),
}
#: Functions and methods by the name torch calls them: the operation and its further arguments in order.
_FUNCTIONS = {
    "max_pool1d": ("max pool", _POOL),
    "max_pool2d": ("max pool", _POOL),
    "avg_pool1d": ("average pool", _AVERAGE),
    "avg_pool2d": ("average pool", _AVERAGE),
    "adaptive_avg_pool1d": ("adaptive average pool", ("output_size",)),
    "adaptive_avg_pool2d": ("adaptive average pool", ("output_size",)),
    "interpolate": ("upsample", _RESIZE),
    "flatten": ("flatten", ("start_dim", "end_dim")),
    "mean": ("mean", ("dim", "keepdim")),
    "add": ("sum", ()),
    "dropout": ("identity", ("p", "training", "inplace")),
    "contiguous": ("identity", ()),
    "permute": ("rearrange", ()),
    "getitem": ("rearrange", ()),
    "view": ("view", ()),
    "reshape": ("view", ()),
}
_SHAPES = ("size", "getattr", "getitem", "dim")


def known_layers() -> list[str]:
    """Names of the layers and operations that have a rule."""
    units = {name.replace("_", "") for name in ELEMENTWISE}
    modules = {kind.__name__.strip("_") for kind in _MODULES}
    modules |= {name for name in nn.modules.activation.__all__ if name.lower() in units}
    functions = set(_FUNCTIONS) - {"view", "contiguous", "permute", "getitem"} | set(TABLE) & set(ELEMENTWISE)
    return sorted(modules) + sorted(functions)


class _Tracer(fx.Tracer):
    """Elementwise modules ``units`` are one call each, whoever wrote them."""

    def __init__(self, units: set[str]):
        super().__init__()
        self.units = units

    def is_leaf_module(self, m, module_qualified_name):
        return super().is_leaf_module(m, module_qualified_name) or module_qualified_name in self.units


def read_graph(model: nn.Module) -> tuple[fx.Graph, dict[str, ElementwiseModule]]:
    """The calls that a model's code makes, by `torch.fx`, and its elementwise modules by their path."""
    found = {path: elementwise(module) for path, module in model.named_modules(remove_duplicate=False)
             if path and not _known(module)}
    units = {path: unit for path, unit in found.items() if unit is not None}
    return _Tracer(set(units)).trace(model), units


def _known(module: nn.Module):
    return next((_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES), None)


def steps(model: nn.Module) -> list[Step]:
    """The calls of a model in order of execution; the first is its input, the last its output.

    Raises
    ------
    TypeError
        For anything but a module.
    ValueError
        For a module in training mode that is not a function of its input there, for code that decides by its
        numbers what to compute, and for a layer or operation without a rule, with those that have one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a torch.nn.Module, whose layers are read, not {type(model).__name__}")
    refuse_training(model)
    try:
        graph, units = read_graph(model)
    except Exception as error:
        raise ValueError(f"the layers of {type(model).__name__} cannot be read from its code ({error}): a prediction "
                         "needs a model that always calls the same layers in the same order") from error
    modules, place, found, names = dict(model.named_modules()), {}, [], CallNames()
    needed = _needed(graph)
    for node in graph.nodes:
        step = _read(node, modules, units, place) if node in needed else None
        if step is None:
            continue
        if step.op not in ("input", "output"):
            step.name = names.new(*step.name.rsplit(":", 1))
        step.node = node.name
        place[node] = len(found)
        found.append(step)
    return found


def _needed(graph: fx.Graph) -> set:
    """What the output depends on: heads that are left out need no rule."""
    needed = {node for node in graph.nodes if node.op in ("output", "placeholder")}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def _read(node, modules, units, place) -> Step | None:
    inputs = [place[each] for each in node.all_input_nodes if each in place]
    if node.op == "placeholder":
        return None if node.args and place else Step("input", [], "input")
    if node.op == "output":
        if len(node.all_input_nodes) != 1 or not isinstance(node.args[0], fx.Node):
            raise ValueError("the model returns more than one tensor: wrap it in a module that returns the output "
                             "to predict, (P, m)")
        return Step("output", inputs, "output")
    if node.op == "call_module":
        return _read_module(node, modules[node.target], units.get(node.target), inputs)
    if node.op == "get_attr":
        return None
    stack = node.meta.get("nn_module_stack") or {}
    path = (list(stack.values())[-1][0] if stack else "") or "model"
    word = "add" if node.target in (operator.add, operator.iadd) else canonical(node.target)[0]
    if word in _SHAPES and not (word == "getitem" and inputs and node.args[0] in place):
        return None
    if word in ELEMENTWISE or (word in TABLE and word not in _FUNCTIONS):
        return _read_unit(node, modules[""], f"{path}:{word}", word, inputs)
    if word not in _FUNCTIONS or not inputs:
        raise _unknown(f"{path}:{word}")
    op, names = _FUNCTIONS[word]
    settings = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k != "input"}
    if word == "dropout" and settings.get("training", True):
        raise ValueError(f"{path}:dropout draws at random: call it with training=self.training, and model.eval()")
    if op == "sum":
        inputs = [place[each] for each in node.args[:2] if isinstance(each, fx.Node) and each in place]
        if len(inputs) != 2 or settings.get("alpha", 1) != 1:
            raise _unknown(f"{path}:{word} of anything but two layers' outputs")
    if op == "view":
        # Only (batch, -1), which is what flatten does, can be told apart without numbers.
        if len(node.args) != 3 or node.args[2] != -1:
            raise _unknown(f"{path}:{word} to another shape than (batch, -1)")
        op, settings = "flatten", {"start_dim": 1}
        inputs = inputs[:1]
    if op == "max pool" and settings.pop("return_indices", False):
        raise _unknown(f"{path}:{word} with its indices")
    return Step(op, inputs, f"{path}:{word}", None, settings, kind=op, switches=op == "max pool")


def _read_module(node, module: nn.Module, unit: ElementwiseModule | None, inputs: list[int]) -> Step:
    known = _known(module)
    if known is not None:
        op, word, names = known
        settings = {name: getattr(module, name) for name in names}
        return Step(op, inputs, f"{node.target}:{word}", module, settings, kind=op, switches=op == "max pool")
    if unit is None:
        raise _unknown(f"{node.target} ({type(module).__name__})")
    joint = "." if ":" in unit.name else ":"
    x = torch.zeros(1, unit.channels, dtype=torch.float64)
    seen = unit.describe(x.to(home_of(module, x)))
    return Step("unit", inputs, f"{node.target}{joint}{unit.name}", module, kind=unit.kind, switches=unit.switches,
                describe=unit.describe, channels=unit.channels, seen=seen)


def _read_unit(node, model: nn.Module, name: str, word: str, inputs: list[int]) -> Step:
    """A unit of the table called as a function; weights among its arguments are looked up."""
    def value(part):
        if not isinstance(part, fx.Node):
            return part
        if part.op != "get_attr":
            raise _unknown(f"{name} of several computed tensors")
        return operator.attrgetter(part.target)(model).detach().double()

    kwargs = {key: value(part) for key, part in node.kwargs.items() if key != "input"}
    args = tuple(value(part) for part in node.args[1:])

    def described(x: Tensor) -> Hinges:
        moved = [part.to(x) if isinstance(part, Tensor) else part for part in args]
        return describe(word, (x, *moved), {key: part.to(x) if isinstance(part, Tensor) else part
                                            for key, part in kwargs.items()}, smooth=True)

    size = max((part.numel() for part in [*args, *kwargs.values()] if isinstance(part, Tensor)), default=1)
    seen = described(torch.zeros(1, size, dtype=torch.float64))
    if not isinstance(seen, Hinges):
        raise _unknown(name)
    return Step("unit", inputs[:1], name, kind=seen.kind, switches=bool(seen.hinges), describe=described,
                channels=size, seen=seen)


def _unknown(what: str) -> ValueError:
    return ValueError(f"{what} has no rule to predict it; those that have one: {', '.join(known_layers())}")
