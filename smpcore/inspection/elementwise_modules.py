# ruff: noqa: SIM905  (a table of names: one word each reads better than quotes around each)
"""A module that acts on each number by itself, described as one unit: torch's activations, and others' own.

Nothing is asked of the module's class. It is run on a few numbers, and told by its calls: units of the table, and
arithmetic that acts on each number by itself. Refused, so that no kink goes uncounted: masks (`where`, comparisons),
selections, rounding, and whatever else is not named here.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smpcore.inspection.calls import Call, Interpreter
from smpcore.inspection.module_scope import Scope
from smpcore.units import TABLE, Hinge, Hinges

__all__ = ["ElementwiseModule", "elementwise"]

_ARITHMETIC = frozenset(
    "add sub mul div true_divide divide multiply subtract pow neg negative exp expm1 log log1p sqrt rsqrt square "
    "reciprocal erf radd rsub rmul rdiv rtruediv rpow truediv float double".split())
# Numbers at which a module of several calls is looked over for thresholds, from -_REACH to _REACH.
_REACH, _POINTS = 64.0, 8193
# Halvings of an interval that holds a threshold; how far beside it, and up to what difference, derivatives are alike.
_HALVINGS, _BESIDE, _ALIKE = 60, 1e-7, 1e-5


class ElementwiseModule(NamedTuple):
    """What an elementwise module is.

    Attributes
    ----------
    name
        Its first call that can switch, as a measurement names it within the module: ``operation`` or
        ``path:operation``; of a smooth module its first unit, or its class.
    kind
        In words.
    switches
        Whether a measurement lists it.
    describe
        From inputs ``(n, channels, ...)`` to `Hinges`.
    channels
        How many have settings of their own; 1 where all are alike.
    """

    name: str
    kind: str
    switches: bool
    describe: Callable[[Tensor], Hinges]
    channels: int = 1


class _Calls(Interpreter):
    """Keeps what a module calls: its units, and whether there is anything that is not known to be elementwise."""

    def __init__(self, scope: Scope):
        super().__init__(scope)
        self.count, self.foreign = 0, False
        self.units: list[tuple[str, Hinges]] = []

    def call(self, call: Call):
        inside = None if call.op in TABLE else self.inside(call.func)
        if inside is not None:
            return inside(*call.args, **call.kwargs)
        self.count += 1
        if call.op not in TABLE:
            self.foreign |= call.op.strip("_") not in _ARITHMETIC
            return call.plain()
        seen = call.describe(smooth=True)
        if not isinstance(seen, Hinges) or any(part.requires_grad for part in call.tensors if part is not seen.input):
            # Thresholds that depend on the input are none.
            self.foreign = True
        else:
            # A copy: a module in place writes into its input.
            path = "" if call.path == "model" else f"{call.path}:"
            self.units.append((path + call.op, seen._replace(input=seen.input.detach().clone())))
        return call.plain()


def elementwise(module: nn.Module) -> ElementwiseModule | None:
    """A module as one unit; None where it is no elementwise one, or not known to be."""
    sizes = {part.numel() for part in [*module.parameters(), *module.buffers()]} - {1}
    if len(sizes) > 1 or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return None
    channels = max(sizes, default=1)
    own = copy.deepcopy(module).double().requires_grad_(False)

    def run(x: Tensor) -> tuple[_Calls, Tensor]:
        scope = Scope(own.to(x.device, x.dtype))
        calls, x = _Calls(scope), x.clone()
        with torch.set_grad_enabled(x.requires_grad), scope(), calls:
            return calls, own.forward(x)

    probe = torch.linspace(-1, 1, 2 * channels, dtype=torch.float64).reshape(2, channels)
    try:
        calls, output = run(probe.to(next(iter(own.parameters()), probe).device).requires_grad_())
    except Exception:
        # Anything that takes other inputs is no elementwise module.
        return None
    if calls.foreign or not calls.count or not isinstance(output, Tensor) or output.shape != probe.shape:
        return None
    name, first = next(((name, seen) for name, seen in calls.units if seen.hinges),
                       calls.units[0] if calls.units else (type(module).__name__, None))
    switches = first is not None and bool(first.hinges)
    kind = name if first is None else first.kind
    if calls.count == 1 and calls.units:
        return ElementwiseModule(name, kind, switches, lambda x: run(x)[0].units[0][1]._replace(input=x),
                                 channels)
    if (switches and channels > 1) or any(seen.jumps for _, seen in calls.units):
        return None

    def output_of(x: Tensor) -> Tensor:
        return own.to(x.device, x.dtype).forward(x.clone())

    whole = Hinges(kind, probe, (), output_of, False)
    found = _thresholds(lambda x: run(x)[0].units, whole) if switches else ()
    return ElementwiseModule(name, kind, switches, lambda x: whole._replace(input=x, hinges=found), channels)


def _thresholds(units: Callable, whole: Hinges) -> tuple[Hinge, ...]:
    """Where a function of one number passes its units' thresholds, with its own derivative on either side."""
    def passed(x):
        return torch.stack([(seen.input > hinge.at).expand(x.shape)[:, 0] for _, seen in units(x)
                            for hinge in seen.hinges])

    x = torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64)[:, None]
    side = passed(x)
    which, place = (side[:, 1:] != side[:, :-1]).nonzero(as_tuple=True)
    low, high, after = x[place], x[place + 1], side[which, place + 1]
    each = torch.arange(len(which))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = (passed(middle)[which, each] == after)[:, None]
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    at = high[:, 0].sort().values
    at = at[torch.cat([at.new_ones(1), at.diff()])[:len(at)] > _BESIDE]
    beside = _BESIDE * (1 + at.abs())
    below, above = (whole.derivative((at + sign * beside)[:, None])[:, 0] for sign in (-1, 1))
    return tuple(Hinge(*hinge) for hinge in zip(at.tolist(), below.tolist(), above.tolist(), strict=True)
                 if abs(hinge[2] - hinge[1]) > _ALIKE * (1 + abs(hinge[1])))
