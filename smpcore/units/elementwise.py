"""Entries of the table: elementwise units, by what they do at their thresholds."""

import torch
from torch import Tensor
from torch.nn import functional as F

from smpcore.units.kinds import TABLE, Hinge, Hinges, Steps, entry, moves

__all__ = []


def _hinge(kind, x, *hinges, output, straight=True):
    return Hinges(kind, x, tuple(Hinge(*hinge) for hinge in hinges), output, straight)


# Elementwise, two slopes ----------------------------------------------------------------------------------


@entry
def relu(x, inplace=False):
    return _hinge("relu", x, (0.0, 0.0, 1.0), output=torch.relu)


@entry
def leaky_relu(x, negative_slope=0.01, inplace=False):
    return _hinge("leaky relu", x, (0.0, negative_slope, 1.0), output=lambda x: F.leaky_relu(x, negative_slope))


@entry
def prelu(x, weight):
    slope = weight if weight.numel() == 1 or x.dim() < 2 else weight.reshape(-1, *[1] * (x.dim() - 2))
    slope = slope.detach()
    return _hinge("prelu", x, (0.0, slope.reshape(()) if slope.numel() == 1 else slope, 1.0),
                  output=lambda x: torch.prelu(x, weight))


@entry
def rrelu(x, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if training:
        raise ValueError("rrelu draws random slopes in training mode: call model.eval() first")
    slope = (lower + upper) / 2
    return _hinge("rrelu", x, (0.0, slope, 1.0), output=lambda x: F.leaky_relu(x, slope))


@entry
def elu(x, alpha=1.0, inplace=False):
    return _hinge("elu", x, *([] if alpha == 1 else [(0.0, alpha, 1.0)]), output=lambda x: F.elu(x, alpha),
                  straight=False)


@entry
def selu(x, inplace=False):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return _hinge("selu", x, (0.0, scale * alpha, scale), output=F.selu, straight=False)


@entry
def abs(x):
    return _hinge("abs", x, (0.0, -1.0, 1.0), output=torch.abs)


@entry
def threshold(x, threshold, value, inplace=False):
    return _hinge("threshold", x, (threshold, 0.0, 1.0, threshold - value),
                  output=lambda x: F.threshold(x, threshold, value))


# Elementwise, several thresholds --------------------------------------------------------------------------


@entry
def hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    return _hinge("hardtanh", x, (min_val, 0.0, 1.0), (max_val, 1.0, 0.0),
                  output=lambda x: F.hardtanh(x, min_val, max_val))


@entry
def relu6(x, inplace=False):
    return _hinge("relu6", x, (0.0, 0.0, 1.0), (6.0, 1.0, 0.0), output=F.relu6)


@entry
def hardsigmoid(x, inplace=False):
    return _hinge("hardsigmoid", x, (-3.0, 0.0, 1 / 6), (3.0, 1 / 6, 0.0), output=F.hardsigmoid)


@entry
def hardswish(x, inplace=False):
    # x relu6(x + 3)/6 has slope (2x + 3)/6 inside: -1/2 at -3 and 3/2 at 3.
    return _hinge("hardswish", x, (-3.0, 0.0, -0.5), (3.0, 1.5, 1.0), output=F.hardswish, straight=False)


@entry
def softshrink(x, lambd=0.5):
    return _hinge("softshrink", x, (-lambd, 1.0, 0.0), (lambd, 0.0, 1.0), output=lambda x: F.softshrink(x, lambd))


@entry
def hardshrink(x, lambd=0.5):
    return _hinge("hardshrink", x, (-lambd, 1.0, 0.0, lambd), (lambd, 0.0, 1.0, lambd),
                  output=lambda x: F.hardshrink(x, lambd))


@entry
def clamp(x, min=None, max=None):
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
    return _hinge("clamp", x, *hinges, output=lambda x: torch.clamp(x, min, max))


@entry
def clamp_min(x, min):
    return clamp(x, min=min)


@entry
def clamp_max(x, max):
    return clamp(x, max=max)


# Elementwise, the value jumps -----------------------------------------------------------------------------


def _steps(name, kind, level, output=None):
    TABLE[name] = lambda x, **_: Steps(kind, x, level, output or level)


_steps("sign", "sign", torch.sign)
_steps("floor", "floor", torch.floor)
_steps("ceil", "ceil", torch.ceil)
_steps("trunc", "trunc", torch.trunc)
_steps("frac", "frac", lambda x: -torch.trunc(x), torch.frac)


@entry
def round(x, *, decimals=0):
    return Steps("round", x, lambda x: torch.round(x, decimals=decimals),
                 lambda x: torch.round(x, decimals=decimals))


@entry
def heaviside(x, values):
    return Steps("heaviside", x, lambda x: torch.heaviside(x, values),
                 # torch's own has no derivative, neither forward nor backward; this one's is 0, as it should be.
                 lambda x: torch.heaviside(x.detach(), values) + 0 * x)


def _plain(value):
    return value.detach() if isinstance(value, Tensor) else value
