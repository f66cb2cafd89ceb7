"""Elementwise units: `ELEMENTWISE` describes each, under torch's name for it.

An entry has the operation's own signature, and gives its thresholds with the derivative on either side of each
(`Hinges`; a smooth unit has none), or says that its value jumps (`Steps`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smpcore.units.kinds import Hinge, Hinges, Steps, moves

__all__ = ["ELEMENTWISE", "SMOOTH"]


def _bent(kind, x, *hinges, output, straight=True):
    return Hinges(kind, x, tuple(Hinge(*hinge) for hinge in hinges), output, straight)


def _smooth(kind, function):
    """An entry of a unit without thresholds."""
    def entry(x, *args, inplace=False, **settings):
        return Hinges(kind, x, (), lambda x: function(x, *args, **settings), False)

    return entry


def _steps(kind, level, output=None):
    """An entry of a unit whose value jumps."""
    return lambda x: Steps(kind, x, level, output or level)


def _prelu(x, weight):
    count, channels = weight.numel(), x.shape[1] if x.dim() > 1 else 1
    if count not in (1, channels):
        raise ValueError(f"PReLU has {count} slopes, for {channels} channels")
    below = weight.detach().reshape(() if count == 1 else (-1, *[1] * (x.dim() - 2)))
    return _bent("prelu", x, (0.0, below, 1.0), output=lambda x: torch.prelu(x, weight))


def _rrelu(x, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if training:
        raise ValueError("rrelu draws random slopes in training mode: call model.eval() first")
    slope = (lower + upper) / 2
    return _bent("rrelu", x, (0.0, slope, 1.0), output=lambda x: F.leaky_relu(x, slope))


def _selu(x, inplace=False):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return _bent("selu", x, (0.0, scale * alpha, scale), output=F.selu, straight=False)


def _clamp(x, min=None, max=None):
    if min is None and max is None:
        return None
    if any(isinstance(bound, Tensor) and moves(bound) for bound in (min, max)):
        raise ValueError("clamp between bounds that depend on the input is not followed: write it with maximum "
                         "and minimum")
    if isinstance(min, Tensor) != isinstance(max, Tensor) and None not in (min, max):
        min, max = torch.as_tensor(min).to(x), torch.as_tensor(max).to(x)
    # Where min exceeds max, torch's clamp is max everywhere: nothing switches.
    live = 1.0 if None in (min, max) else (torch.as_tensor(min) < torch.as_tensor(max)).to(x)
    hinges = [] if min is None else [(_plain(min), 0.0, live)]
    hinges += [] if max is None else [(_plain(max), live, 0.0)]
    return _bent("clamp", x, *hinges, output=lambda x: torch.clamp(x, min, max))


def _plain(value):
    return value.detach() if isinstance(value, Tensor) else value


def _round(x, *, decimals=0):
    return _steps("round", lambda x: torch.round(x, decimals=decimals))(x)


def _heaviside(x, values):
    # torch's own function has no derivative, forward or backward; here the derivative is 0, as it should be.
    return _steps("heaviside", lambda x: torch.heaviside(x, values),
                  lambda x: torch.heaviside(x.detach(), values) + 0 * x)(x)


#: Units without a threshold: they never switch; predictions still need their moments and gains.
SMOOTH = {name: _smooth(name, getattr(F, name)) for name in (
    "tanh", "sigmoid", "gelu", "silu", "mish", "softplus", "softsign", "logsigmoid", "celu", "tanhshrink")}

ELEMENTWISE = SMOOTH | {
    # Two derivatives.
    "relu": lambda x, inplace=False: _bent("relu", x, (0.0, 0.0, 1.0), output=torch.relu),
    "leaky_relu": lambda x, negative_slope=0.01, inplace=False: _bent(
        "leaky relu", x, (0.0, negative_slope, 1.0), output=lambda x: F.leaky_relu(x, negative_slope)),
    "prelu": _prelu,
    "rrelu": _rrelu,
    "elu": lambda x, alpha=1.0, inplace=False: _bent(
        "elu", x, *([] if alpha == 1 else [(0.0, alpha, 1.0)]), output=lambda x: F.elu(x, alpha), straight=False),
    "selu": _selu,
    "abs": lambda x: _bent("abs", x, (0.0, -1.0, 1.0), output=torch.abs),
    "threshold": lambda x, threshold, value, inplace=False: _bent(
        "threshold", x, (threshold, 0.0, 1.0, threshold - value), output=lambda x: F.threshold(x, threshold, value)),
    # Several thresholds.
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0, inplace=False: _bent(
        "hardtanh", x, (min_val, 0.0, 1.0), (max_val, 1.0, 0.0), output=lambda x: F.hardtanh(x, min_val, max_val)),
    "relu6": lambda x, inplace=False: _bent("relu6", x, (0.0, 0.0, 1.0), (6.0, 1.0, 0.0), output=F.relu6),
    "hardsigmoid": lambda x, inplace=False: _bent(
        "hardsigmoid", x, (-3.0, 0.0, 1 / 6), (3.0, 1 / 6, 0.0), output=F.hardsigmoid),
    # x relu6(x + 3)/6 has derivative (2x + 3)/6 inside: -1/2 at -3 and 3/2 at 3.
    "hardswish": lambda x, inplace=False: _bent(
        "hardswish", x, (-3.0, 0.0, -0.5), (3.0, 1.5, 1.0), output=F.hardswish, straight=False),
    "softshrink": lambda x, lambd=0.5: _bent(
        "softshrink", x, (-lambd, 1.0, 0.0), (lambd, 0.0, 1.0), output=lambda x: F.softshrink(x, lambd)),
    "hardshrink": lambda x, lambd=0.5: _bent(
        "hardshrink", x, (-lambd, 1.0, 0.0, lambd), (lambd, 0.0, 1.0, lambd), output=lambda x: F.hardshrink(x, lambd)),
    "clamp": _clamp,
    "clamp_min": lambda x, min: _clamp(x, min=min),
    "clamp_max": lambda x, max: _clamp(x, max=max),
    # The value jumps.
    "sign": _steps("sign", torch.sign),
    "floor": _steps("floor", torch.floor),
    "ceil": _steps("ceil", torch.ceil),
    "trunc": _steps("trunc", torch.trunc),
    "frac": _steps("frac", lambda x: -torch.trunc(x), torch.frac),
    "round": _round,
    "heaviside": _heaviside,
}
