"""A model as a list of steps, read from its code with `torch.fx`: no number goes through it.

`steps` names each call that can switch as the measurement side does: ``module.path:operation``, with ``#2``,
``#3`` for later calls of the same.
"""

import operator
from dataclasses import dataclass, field

from torch import fx, nn
from torch.nn import functional as F

__all__ = ["Step", "known_layers", "steps"]


@dataclass
class Step:
    """One call.

    Attributes
    ----------
    op
        What it does: a key of `known_layers`.
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
    """

    op: str
    inputs: list[int]
    name: str
    module: nn.Module | None = None
    settings: dict = field(default_factory=dict)
    node: str = ""


#: Modules that have a rule: the operation, the word for it in a name, and the settings read off the module.
_MODULES = {
    nn.Linear: ("linear", "linear", ()),
    nn.Conv1d: ("conv", "conv1d", ()), nn.Conv2d: ("conv", "conv2d", ()),
    nn.BatchNorm1d: ("batch norm", "batch_norm", ()), nn.BatchNorm2d: ("batch norm", "batch_norm", ()),
    nn.ReLU: ("relu", "relu", ()), nn.LeakyReLU: ("leaky relu", "leaky_relu", ("negative_slope",)),
    nn.PReLU: ("prelu", "prelu", ()),
    nn.ReLU6: ("hardtanh", "hardtanh", ("min_val", "max_val")),
    nn.Hardtanh: ("hardtanh", "hardtanh", ("min_val", "max_val")),
    nn.Tanh: ("tanh", "tanh", ()), nn.Sigmoid: ("sigmoid", "sigmoid", ()),
    nn.GELU: ("gelu", "gelu", ("approximate",)), nn.SiLU: ("silu", "silu", ()),
    nn.Softplus: ("softplus", "softplus", ("beta", "threshold")),
    nn.MaxPool1d: ("max pool", "max_pool1d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    nn.MaxPool2d: ("max pool", "max_pool2d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    nn.AvgPool1d: ("average pool", "avg_pool1d",
                   ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    nn.AvgPool2d: ("average pool", "avg_pool2d",
                   ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    nn.AdaptiveAvgPool1d: ("adaptive average pool", "adaptive_avg_pool1d", ("output_size",)),
    nn.AdaptiveAvgPool2d: ("adaptive average pool", "adaptive_avg_pool2d", ("output_size",)),
    nn.Upsample: ("upsample", "upsample", ("size", "scale_factor", "mode", "align_corners")),
    nn.Flatten: ("flatten", "flatten", ("start_dim", "end_dim")),
    nn.Identity: ("identity", "identity", ()),
}
_MODULES |= {kind: ("identity", "dropout", ()) for kind in
             (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)}

_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
#: Functions and methods by the name torch calls them: the operation and its further arguments in order.
_FUNCTIONS = {
    "relu": ("relu", ("inplace",)), "relu_": ("relu", ()), "leaky_relu": ("leaky relu", ("negative_slope", "inplace")),
    "hardtanh": ("hardtanh", ("min_val", "max_val", "inplace")), "relu6": ("hardtanh", ("inplace",)),
    "tanh": ("tanh", ()), "sigmoid": ("sigmoid", ()), "gelu": ("gelu", ("approximate",)),
    "silu": ("silu", ("inplace",)), "softplus": ("softplus", ("beta", "threshold")),
    "max_pool1d": ("max pool", _POOL), "max_pool2d": ("max pool", _POOL),
    "avg_pool1d": ("average pool", _AVG), "avg_pool2d": ("average pool", _AVG),
    "adaptive_avg_pool1d": ("adaptive average pool", ("output_size",)),
    "adaptive_avg_pool2d": ("adaptive average pool", ("output_size",)),
    "interpolate": ("upsample", ("size", "scale_factor", "mode", "align_corners")),
    "flatten": ("flatten", ("start_dim", "end_dim")), "mean": ("mean", ("dim", "keepdim")),
    "add": ("sum", ()), "iadd": ("sum", ()), "dropout": ("identity", ("p", "training", "inplace")),
    "contiguous": ("identity", ()),
    "permute": ("rearrange", ()), "getitem": ("rearrange", ()), "view": ("view", ()), "reshape": ("view", ()),
}
_SHAPES = ("size", "getattr", "getitem", "dim")


def known_layers() -> list[str]:
    """Names of the layers and operations that have a rule."""
    hidden = ("iadd", "relu_", "view", "contiguous", "permute", "getitem")
    functions = {name for name in _FUNCTIONS if name not in hidden}
    return sorted({kind.__name__ for kind in _MODULES}) + sorted(functions)


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
    for path, module in model.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            raise ValueError(f"module {path or 'model'} ({type(module).__name__}) is in training mode, so the output "
                             "is not a function of t: call model.eval() first")
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        raise ValueError(f"the layers of {type(model).__name__} cannot be read from its code ({error}): a prediction "
                         "needs a model that always calls the same layers in the same order") from error
    modules, place, found, calls = dict(model.named_modules()), {}, [], {}
    needed = _needed(graph)
    for node in graph.nodes:
        step = _read(node, modules, place) if node in needed else None
        if step is None:
            continue
        if step.op not in ("input", "output"):
            calls[step.name] = calls.get(step.name, 0) + 1
            step.name += "" if calls[step.name] == 1 else f"#{calls[step.name]}"
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


def _read(node, modules, place) -> Step | None:
    inputs = [place[each] for each in node.all_input_nodes if each in place]
    if node.op == "placeholder":
        return None if node.args and place else Step("input", [], "input")
    if node.op == "output":
        if len(node.all_input_nodes) != 1 or not isinstance(node.args[0], fx.Node):
            raise ValueError("the model returns more than one tensor: wrap it in a module that returns the output "
                             "to predict, (P, m)")
        return Step("output", inputs, "output")
    if node.op == "call_module":
        module = modules[node.target]
        known = next((_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES), None)
        if known is None:
            raise _unknown(f"{node.target} ({type(module).__name__})")
        op, word, names = known
        return Step(op, inputs, f"{node.target}:{word}", module, {name: getattr(module, name) for name in names})
    if node.op == "get_attr":
        return None
    stack = node.meta.get("nn_module_stack") or {}
    path = (list(stack.values())[-1][0] if stack else "") or "model"
    word = _word(node)
    if word in _SHAPES and not (word == "getitem" and inputs and node.args[0] in place):
        return None
    if word not in _FUNCTIONS or not inputs:
        raise _unknown(f"{path}:{word}")
    op, names = _FUNCTIONS[word]
    settings = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k != "input"}
    if word == "relu6":
        settings = {"min_val": 0.0, "max_val": 6.0}
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
    return Step(op, inputs, f"{path}:{word.rstrip('_')}", None, settings)


def _word(node) -> str:
    if node.op == "call_method":
        return node.target
    if node.target in (operator.add, operator.iadd):
        return "add"
    if node.target is getattr:
        return "getattr"
    for name in ("max_pool1d", "max_pool2d"):
        if node.target is getattr(F, name):
            return name
    return getattr(node.target, "__name__", str(node.target))


def _unknown(what: str) -> ValueError:
    return ValueError(f"{what} has no rule to predict it; those that have one: {', '.join(known_layers())}")


