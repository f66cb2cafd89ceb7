"""A trained network made smooth: no labels and no training, only inputs such as it will see.

Each max pooling becomes a log-sum-exp and each kinked elementwise unit a sum of softplus. In order of execution a
factor and a shift per channel restore the mean and the spread that the unit had, and each linear layer and convolution
behind is fitted to the outputs that it had itself.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from smpcore.arguments import MODULE, TENSOR, Kind, checked, checked_copy, optional, several
from smpcore.inspection.calls import Call, watched
from smpcore.inspection.module_scope import CallNames
from smpcore.smoothing.penalties import curvature_penalty, expected_smp, flat_outputs
from smpcore.smoothing.soft_units import softened
from smpcore.units import Selection, unfollowed

__all__ = ["Relaxed", "relax"]

_SHARPNESS = {"pool": 0.5, "activation": 8.0}
_MISFIT = ": it must be numbers above 0, named 'pool' and 'activation'"
_B = Kind(Mapping, _MISFIT, lambda given: all(name in _SHARPNESS and not isinstance(b, bool) and 0 < b < math.inf
                                              for name, b in given.items()), _MISFIT)
_FLAG = Kind(object, ": it must be True or False", lambda value: isinstance(value, bool))
#: Layers that can be fitted again; not their subclasses, which may use their weights otherwise.
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Ridge of the refit, as a share of the mean square of a feature; and how many numbers its table holds at most.
_RIDGE, _TABLE = 0.1, 2**23
#: Of a report: pairs of inputs and outputs at most, and the step on the line between a pair.
_PAIRS, _OUTPUTS, _STEP = 16, 16, 0.02


@dataclass(frozen=True)
class Relaxed:
    """A network made smooth.

    Attributes
    ----------
    model
        The new network: in the type, on the device and in the mode of the one that it was made from.
    replaced
        Names of the calls that are smooth now, in order of execution, as `smpcore.attribute` gives them.
    moved
        ``(m,)`` by how much each output changed on the calibration inputs, root mean square, in output units. The
        outputs are all floating tensors that the model returns, flattened, in order. The layers are fitted on these
        inputs: others move more, the fewer there were.
    left
        What cannot be made smooth, by name, with the reason.
    refitted
        Paths of the layers with weights that were fitted again.
    """

    model: nn.Module
    replaced: list[str]
    moved: Tensor
    left: dict[str, str]
    refitted: list[str]
    _hard: nn.Module = field(repr=False)
    _inputs: Tensor = field(repr=False)
    _spread: Tensor = field(repr=False)

    def report(self) -> str:
        """What was done, and SMP and roughness before and after.

        Both are means over straight lines between pairs of calibration inputs and over the first 16 outputs: SMP as
        `expected_smp` estimates it, roughness as `curvature_penalty` reads it in the middle of the line, at a step of a
        fiftieth of it.
        """
        share = (self.moved / self._spread)[self._spread > 0]
        lines = [f"made smooth: {', '.join(self.replaced) or 'nothing'}",
                 *(f"left: {name}: {reason}" for name, reason in self.left.items()),
                 f"fitted again: {', '.join(self.refitted) or 'no layer with weights'}",
                 f"outputs moved by {float(share.mean()) if len(share) else 0:.2%} of their standard deviation on the "
                 f"calibration inputs in the mean, {float(share.max()) if len(share) else 0:.2%} at most"]
        half = min(len(self._inputs) // 2, _PAIRS)
        x0, x1 = self._inputs[:half], self._inputs[half:2 * half]
        before, after = (_smp_and_roughness(model, x0, x1) for model in (self._hard, self.model))
        lines += [f"{name}, per line between two calibration inputs: {one:.3g} before, {other:.3g} after"
                  for name, one, other in zip(("SMP", "roughness"), before, after, strict=True)]
        return "\n".join(lines)


@checked(model=MODULE, calibration=TENSOR, sharpness=_B, refit=_FLAG,
         layers=optional(several(Kind(str, ""), ": it must be names of layers", least=0, or_one=True)))
def relax(model: nn.Module, calibration: Tensor, *, layers: Sequence[str] | None = None,
          sharpness: Mapping[str, float] = _SHARPNESS, refit: bool = True) -> Relaxed:
    """Make a trained network smooth, or some of its layers, without labels and without training.

    Parameters
    ----------
    model
        In evaluation mode, on any device; it is not touched.
    calibration
        ``(N, *input_shape)``, N of at least 2: unlabelled inputs such as the network will see, a few hundred if it can
        be. Inputs unlike them are moved more.
    layers
        Names as `smpcore.attribute` gives them; all that can be made smooth where None.
    sharpness
        b of poolings (``"pool"``, maxima and minima too) and of elementwise units (``"activation"``), positive. The
        log-sum-exp has beta = b over the root mean square standard deviation within its windows, the softplus b over
        that of the unit's input. A unit of k candidates (2 for a threshold) moves by log(k)/b such deviations at most,
        before its mean and spread are restored.
    refit
        Whether to fit the linear layers and convolutions behind a smooth unit, in order of execution, each to its own
        former outputs, by ridge regression. Layers that run more than once, or share their weights, stay.

    Returns
    -------
    Relaxed

    Raises
    ------
    ValueError, TypeError
        For a model that is no module, or in training mode with batch norm or dropout; calibration inputs that are
        fewer than two, not finite, or that the model does not take; layers that it does not have, or that cannot be
        made smooth; a sharpness that is not positive.

    Notes
    -----
    A module that does nothing but one such call is replaced by a smooth one. A call within other code is answered
    while the model runs, by a `torch.overrides.TorchFunctionMode`. Either way ``torch.save`` stores the new model, and
    ``torch.load(file, weights_only=False)`` gives it back wherever smpcore and the model's own class can be imported.
    What has its value jump, or is sorted, is left as it is.
    """
    model = getattr(model, "_orig_mod", model)
    sharpness = _SHARPNESS | dict(sharpness)
    x = _checked_inputs(model, calibration)
    hard = checked_copy(model, x.dtype)
    sites, left = _survey(hard, x[:2 if len(x) > 2 else 1])
    chosen = _chosen(sites, left, layers)
    before, wanted = _measured(hard, x, chosen, sharpness, _fittable(hard) if refit else [])
    soft = copy.deepcopy(hard)
    after, refitted = _softened(soft, x, chosen, wanted)
    _install(soft, chosen)
    learnt = {name: part.requires_grad for name, part in model.named_parameters()}
    for name, part in soft.named_parameters():
        part.requires_grad_(learnt[name])
    return Relaxed(soft, [site.name for site in chosen.values()], (after - before).square().mean(0).sqrt(),
                   left, refitted, hard, x[::-(-len(x) // (2 * _PAIRS))], before.std(0, correction=0))


@dataclass
class _Site:
    """One call that can switch: its name, its smooth unit, and what the kinked one does on the calibration inputs."""

    name: str
    path: str
    soft: nn.Module
    group: str
    channels: int | None
    size: int
    in_place: bool
    returns_pair: bool
    mean: Tensor | None = None
    std: Tensor | None = None
    unit: nn.Module | None = None

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, per channel."""
        kept = None if self.channels is None else self.channels % y.dim()
        std, mean = torch.std_mean(y, [axis for axis in range(y.dim()) if axis != kept], correction=0, keepdim=True)
        return mean, std


class _Calibrated(nn.Module):
    """A smooth unit, then a factor and a shift per channel."""

    def __init__(self, soft: nn.Module, in_place: bool, scale: Tensor, shift: Tensor):
        super().__init__()
        self.soft, self.in_place = soft, in_place
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.in_place:
            return inputs[0].copy_(self.soft(inputs[0].clone()) * self.scale + self.shift)
        return self.soft(*inputs) * self.scale + self.shift


def _survey(model: nn.Module, x: Tensor) -> tuple[dict[tuple, _Site], dict[str, str]]:
    """One forward pass on a few inputs: the calls that depend on them, and what cannot be made smooth."""
    sites, left, names = {}, {}, CallNames()

    def answer(call: Call):
        if not call.moves:
            return call.plain()
        name, soft = names.new(call.path, call.op), None
        try:
            seen = call.describe()
            if seen is not None:
                if any(part.requires_grad and not any(part is x for x in seen.inputs) for part in call.tensors):
                    raise ValueError("its thresholds depend on the input")
                soft = softened(call.op, seen, call.args, call.kwargs).to(seen.inputs[0])
        except ValueError as error:
            left[name] = str(error)
        result = call.plain()
        if soft is not None:
            y = result if isinstance(result, Tensor) else result[0]
            size = y.shape[call.channels] if y.dim() > 1 else 0
            sites[call.key] = _Site(name, call.path, soft, "pool" if isinstance(seen, Selection) else "activation",
                                    call.channels, size, call.in_place, result is not y)
        return result

    def beside(call: Call):
        advice = unfollowed(call.op, call.args, call.kwargs)
        if call.moves and advice:
            left[call.place] = advice

    with torch.enable_grad(), watched(model, answer, beside):
        try:
            model(x.clone().requires_grad_().clone())
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"the model does not take calibration inputs of shape {tuple(x.shape)}: "
                             f"{str(error).splitlines()[0][:200]}") from error
    return sites, left


def _chosen(sites: dict[tuple, _Site], left: dict[str, str], layers: Sequence[str] | None) -> dict[tuple, _Site]:
    names = [site.name for site in sites.values()]
    layers = names if layers is None else [layers] if isinstance(layers, str) else layers
    for layer in layers:
        if layer in left:
            raise ValueError(f"{layer} cannot be made smooth: {left[layer]}")
        if layer not in names:
            raise ValueError(f"layers has {layer!r}, which the model does not have; it has: {', '.join(names)}")
    return {key: site for key, site in sites.items() if site.name in layers}


def _fittable(model: nn.Module) -> list[str]:
    """Paths of the layers whose weights are theirs alone."""
    users = Counter(part for module in model.modules() for part in module._parameters.values())
    return [path for path, module in model.named_modules() if type(module) in _WEIGHTED
            and {"weight"} < module._parameters.keys() and module.weight.is_floating_point()
            and users[module.weight] == 1]


def _at(sites: dict[tuple, _Site], answer: Callable) -> Callable:
    """For `watched`: ``answer(call, site)`` answers the calls of the sites, and others are as they were."""
    return lambda call: answer(call, sites[call.key]) if call.key in sites else call.plain()


def _measured(model, x, sites, sharpness, weighted):
    """Fill in the sites' statistics and sharpness; the outputs, and what each layer with weights gives."""
    wanted: dict[str, list] = {path: [] for path in weighted}

    def answer(call, site):
        site.soft.beta.fill_(sharpness[site.group] / (site.soft.spread(*call.describe().inputs) or 1.0))
        result = call.plain()
        y = result if isinstance(result, Tensor) else result[0]
        # A dimension that grows with the number of inputs does not hold channels.
        if y.dim() < 2 or y.shape[site.channels] != site.size:
            site.channels = None
        site.mean, site.std = site.statistics(y)
        return result

    def keep(path):
        def kept(layer, args, output):
            # Inputs without a batch's dimension, and those given by name, are not told apart here.
            if args and (args[0].dim() == layer.weight.dim() or isinstance(layer, nn.Linear)):
                wanted[path].append(output[::_every(layer, output)].clone())

        return kept

    with torch.no_grad(), _hooked(model, weighted, keep), watched(model, _at(sites, answer)):
        found = flat_outputs(model(x)).double()
    if not bool(found.isfinite().all()):
        raise ValueError("the model's output on the calibration inputs is not finite: look at its weights")
    return found, {path: given[0] for path, given in wanted.items() if len(given) == 1}


def _softened(model, x, sites, wanted):
    """Run the model with its smooth units, each calibrated as its turn comes, and the layers behind them fitted again;
    the outputs, and which were."""
    refitted = []

    def answer(call, site):
        def calibrated(*inputs):
            y = site.soft(*inputs)
            mean, std = site.statistics(y)
            scale = torch.where((std > 0) & (site.std > 0), site.std / std, 1.0)
            site.unit = _Calibrated(site.soft, site.in_place, scale, site.mean - scale * mean)
            return y * scale + site.unit.shift

        return call.answered_by(calibrated)

    def fit(path):
        def fitted(layer, args, output):
            every = _every(layer, output)
            missed = wanted[path] - output[::every]
            if not bool(missed.any()):
                return None
            refitted.append(path)
            _refit(layer, args[0][::every], missed)
            return layer.forward(*args)

        return fitted

    with torch.no_grad(), _hooked(model, wanted, fit), watched(model, _at(sites, answer)):
        return flat_outputs(model(x)).double(), refitted


def _every(layer: nn.Module, output: Tensor) -> int:
    """Each how manieth input of a layer is fitted on, so that the table of its features stays small."""
    places = output.numel() // len(layer.weight)
    return -(-places * layer.weight[0].numel() * getattr(layer, "groups", 1) // _TABLE)


def _refit(layer: nn.Module, x: Tensor, missed: Tensor) -> None:
    """Change a layer's weights so that it gives what it missed, by ridge regression over its features.

    The features are what the weights multiply: the layer with an identity for its weights gives them.
    """
    groups, size, line = getattr(layer, "groups", 1), layer.weight[0].numel(), isinstance(layer, nn.Linear)
    identity = torch.eye(size).to(layer.weight).view(size, *layer.weight.shape[1:])
    features = x if line else layer._conv_forward(x, identity.repeat(groups, *[1] * (identity.dim() - 1)), None)
    rows, missed = (part.movedim(-1 if line else 1, -1).reshape(-1, groups, per).transpose(0, 1).double()
                    for part, per in ((features, size), (missed, len(layer.weight) // groups)))
    center = rows.mean(1, keepdim=True), missed.mean(1, keepdim=True)
    if layer.bias is not None:
        rows, missed = rows - center[0], missed - center[1]
    ridge = _RIDGE * rows.square().sum((1, 2), keepdim=True) / size + 1e-30
    ridge = ridge * torch.eye(min(rows.shape[1:])).to(rows)
    # Of the two ways to write the solution, the one with the smaller matrix.
    if rows.shape[1] < size:
        change = rows.mT @ torch.linalg.solve(rows @ rows.mT + ridge, missed)
    else:
        change = torch.linalg.solve(rows.mT @ rows + ridge, rows.mT @ missed)
    layer.weight += change.mT.reshape(layer.weight.shape).to(layer.weight)
    if layer.bias is not None:
        layer.bias += (center[1] - center[0] @ change).flatten().to(layer.bias)


def _install(model: nn.Module, sites: dict[tuple, _Site]) -> None:
    """Put the smooth units into the model: in the place of modules, or beside the code that makes the calls."""
    alone = [site.path for site in sites.values()]
    under, routed = "relaxed", False
    while any(under in module._modules for module in model.modules()):  # of a model that was made smooth before
        under += "_again"
    for (path, op, number), site in sites.items():
        owner = model if path == "model" and "model" not in model._modules else model.get_submodule(path)
        if (alone.count(path) == 1 and not site.returns_pair and number == 1 and owner is not model
                and not owner._modules and type(owner).__module__.startswith("torch.nn.modules")):
            for parent in list(model.modules()):
                for name, child in list(parent._modules.items()):
                    if child is owner:
                        parent._modules[name] = site.unit
        else:
            if under not in owner._modules:
                owner.add_module(under, nn.ModuleDict())
            owner._modules[under][f"{op}#{number}"] = site.unit
            routed = True
    if routed:
        model.forward = _Routed(model, under)


class _Routed:
    """The forward of a model in which calls within other code are answered by smooth units.

    It stands in the place of the method in that one model, so that the model keeps its class, and is pickled and
    copied with it.
    """

    def __init__(self, model: nn.Module, under: str):
        self.model, self.under, self.forward = model, under, vars(model).get("forward")

    def __call__(self, *args, **kwargs):
        def answer(call):
            inside = call.path != "model" or "model" in self.model._modules
            owner = self.model.get_submodule(call.path) if inside else self.model
            units = owner._modules.get(self.under, {})
            name = f"{call.op}#{call.number}"
            return call.answered_by(units[name]) if name in units else call.plain()

        forward = self.forward or type(self.model).forward.__get__(self.model)
        with watched(self.model, answer):
            return forward(*args, **kwargs)


@contextmanager
def _hooked(model: nn.Module, paths, hook: Callable):
    """While this is open, ``hook(path)`` is a forward hook of each module."""
    handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _smp_and_roughness(model, x0, x1) -> tuple[float, float]:
    def first(x):
        return flat_outputs(model(x))[:, :_OUTPUTS]

    with torch.no_grad():
        roughness = curvature_penalty(first, (x0 + x1) / 2, x1 - x0, _STEP)
    return float(expected_smp(first, x0, x1).mean()), float(roughness)


def _checked_inputs(model: nn.Module, calibration: Tensor) -> Tensor:
    if calibration.dim() < 2 or len(calibration) < 2:
        raise ValueError(f"calibration has shape {tuple(calibration.shape)}: it must be (N, *input_shape) with at "
                         "least two inputs")
    bad = (~calibration.flatten(1).isfinite()).any(1).nonzero()
    if len(bad):
        raise ValueError(f"calibration[{int(bad[0])}] holds NaN or infinity")
    numbers = [part for part in [*model.parameters(), *model.buffers()] if part.is_floating_point()]
    return calibration.detach().to(numbers[0]) if numbers else calibration.detach()
