"""One rule for each layer: statistics go in, statistics come out.

`propagate(layer, statistics)` is a `functools.singledispatch` over module types. To add a layer: a rule here with
its source, and a row in the table of cases of its test. Weights are those of the layer, as they are; for networks
whose weights are drawn see `smpcore.propagation.networks`.
"""

import math
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor, nn

from smpcore.propagation._max_pooling import windows
from smpcore.propagation._orthants import sobol
from smpcore.propagation.rules import max_pool_smp, two_slope_smp
from smpcore.propagation.statistics import Statistics

__all__ = ["Residual", "propagate"]

# Sobol points (in each of eight scrambles) for moments behind what has no closed form.
_POINTS = 2048
_MOST = 256
# Terms of a sum that counts as Gaussian whatever its terms are.
_MANY = 8


class Residual(nn.Module):
    """x + f(x): the residual sum, as a module that has a rule for a linear f."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@singledispatch
def propagate(layer, statistics: Statistics) -> Statistics:
    """Statistics of a layer's outputs from those of its inputs.

    Parameters
    ----------
    layer
        An `nn.Module` of a kind that has a rule; subclasses have their parent's.
    statistics
        Of its inputs; ``shape`` says how they are laid out.

    Returns
    -------
    Statistics
        With the expected SMP so far, old kinks passed on and the layer's own.

    Raises
    ------
    TypeError
        For a layer without a rule, with those that have one.
    ValueError
        For inputs that break an assumption of the rule, or do not fit the layer.
    """
    known = sorted(kind.__name__ for kind in propagate.registry if kind is not object)
    raise TypeError(f"{type(layer).__name__} has no rule to propagate through; those that have one: {', '.join(known)}")


# Linear ---------------------------------------------------------------------------------------------------


@propagate.register(nn.Identity)
def _identity(layer, statistics: Statistics) -> Statistics:
    return statistics


@propagate.register(nn.Dropout)
@propagate.register(nn.Dropout2d)
def _dropout(layer, statistics: Statistics) -> Statistics:
    """The identity in evaluation mode."""
    _evaluated(layer)
    return statistics


@propagate.register(nn.Flatten)
def _flatten(layer, statistics: Statistics) -> Statistics:
    """Another layout of the same signals."""
    return replace(statistics, shape=(len(statistics.mean),))


@propagate.register(nn.Linear)
@propagate.register(nn.Conv1d)
@propagate.register(nn.Conv2d)
@propagate.register(nn.AvgPool1d)
@propagate.register(nn.AvgPool2d)
@propagate.register(nn.AdaptiveAvgPool1d)
@propagate.register(nn.AdaptiveAvgPool2d)
@propagate.register(nn.Upsample)
@propagate.register(nn.BatchNorm1d)
@propagate.register(nn.BatchNorm2d)
@propagate.register(Residual)
def _affine(layer, statistics: Statistics) -> Statistics:
    """y = W x + b, exactly: μ → Wμ + b, covariances → W C Wᵀ, SMP → |W| SMP (`rules.linear_smp`).

    W and b are read off by sending the unit vectors through the layer: a convolution of any stride, padding,
    dilation and groups is one matrix. Assumes that old kinks of different inputs stand at different times. A linear
    or convolutional layer whose every output is a sum of eight or more terms of like size gives Gaussian signals.
    """
    _evaluated(layer)
    weight, bias, shape = _matrix(layer, statistics.shape)
    behind = statistics.linear(weight, bias.to(statistics.mean), shape)
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        # How many terms of like size each sum has: from a good handful on, it is near enough to Gaussian.
        terms = weight.abs().sum(1) ** 2 / (weight**2).sum(1).clamp(min=1e-300)
        behind = replace(behind, gaussian=statistics.gaussian or bool((terms >= _MANY).all()))
    return behind


def _matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    inputs = torch.Size(shape).numel()
    if isinstance(layer, Residual):
        weight, bias, behind = _matrix_of_all(layer.inner, shape)
        if behind != tuple(shape):
            raise ValueError(f"the residual's inner layer turns {tuple(shape)} into {behind}: both have to be alike")
        return weight + torch.eye(inputs, dtype=torch.float64), bias, behind
    device = next((part.device for part in layer.parameters()), torch.device("cpu"))
    dtype = next((part.dtype for part in layer.parameters()), torch.float64)
    rows = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).to(device, dtype).reshape(-1, *shape)
    try:
        with torch.no_grad():
            found = layer(rows)
    except RuntimeError as error:
        raise ValueError(f"{type(layer).__name__} cannot take inputs of shape {tuple(shape)}: {error}") from error
    flat = found.flatten(1).double().cpu()
    return (flat[1:] - flat[0]).T.contiguous(), flat[0], tuple(found.shape[1:])


def _matrix_of_all(layer: nn.Module, shape: tuple[int, ...]):
    """Of a layer, or a chain of them, that has to be linear."""
    inside = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    weight, bias = torch.eye(torch.Size(shape).numel(), dtype=torch.float64), 0.0
    for part in inside:
        if propagate.dispatch(type(part)) is not _affine:
            raise ValueError(f"a residual sum around {type(part).__name__} has no rule: its kinks and values depend on "
                             "those that it is added to; only linear layers do")
        own, shift, shape = _matrix(part, shape)
        weight, bias = own @ weight, own @ bias + shift if torch.is_tensor(bias) else shift
    return weight, bias, shape


def _evaluated(layer: nn.Module) -> None:
    kinds = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
    for module in layer.modules():
        if module.training and isinstance(module, kinds):
            raise ValueError(f"{type(module).__name__} is in training mode, so its output is not a function of t: "
                             "call model.eval() first")


@propagate.register(nn.Sequential)
def _sequential(layer, statistics: Statistics) -> Statistics:
    """One layer after the other."""
    for part in layer:
        statistics = propagate(part, statistics)
    return statistics


# Elementwise ----------------------------------------------------------------------------------------------


@propagate.register(nn.ReLU)
def _relu(layer, statistics: Statistics) -> Statistics:
    """New kinks where a signal crosses 0, old ones where the unit is on (`rules.two_slope_smp`)."""
    return _two_slope(layer, statistics, torch.zeros(1, dtype=torch.float64))


@propagate.register(nn.LeakyReLU)
def _leaky_relu(layer, statistics: Statistics) -> Statistics:
    """As ReLU's, with the slope below 0."""
    return _two_slope(layer, statistics, torch.tensor([layer.negative_slope], dtype=torch.float64))


@propagate.register(nn.PReLU)
def _prelu(layer, statistics: Statistics) -> Statistics:
    """As leaky ReLU's, each channel with its own slope."""
    below = layer.weight.detach().double().cpu()
    if len(below) not in (1, statistics.shape[0]):
        raise ValueError(f"PReLU has {len(below)} slopes, for {statistics.shape[0]} channels")
    return _two_slope(layer, statistics, below.expand(statistics.shape[0]).repeat_interleave(
        len(statistics.mean) // statistics.shape[0]))


def _two_slope(layer, statistics: Statistics, below: Tensor) -> Statistics:
    """Rice's formula for the kinks; moments of max(x, 0) and of its slopes over Sobol points."""
    name = type(layer).__name__
    statistics.require(name, "gaussian", "stationary")
    below = below.to(statistics.mean).expand(len(statistics.mean))
    moves = (statistics.var > 0) & (statistics.slope_var > 0)
    smp = torch.where(statistics.mean > 0, 1.0, below.abs()) * statistics.smp
    ones = torch.ones_like(below)
    smp[moves] = two_slope_smp(statistics.mean[moves], statistics.var[moves], statistics.slope_var[moves],
                               statistics.duration, statistics.smp[moves], (ones[moves], below[moves]))
    return _through(statistics, smp, lambda x: torch.where(x > 0, x, below * x),
                    lambda x: torch.where(x > 0, 1.0, below))


@propagate.register(nn.Hardtanh)
def _hardtanh(layer, statistics: Statistics) -> Statistics:
    """Two thresholds, Rice's formula at each; old kinks pass in between. ReLU6 is one of these."""
    statistics.require(type(layer).__name__, "gaussian", "stationary")
    low, high = layer.min_val, layer.max_val
    moves = (statistics.var > 0) & (statistics.slope_var > 0)
    std = torch.where(moves, statistics.var, 1.0).sqrt()
    edges = [(edge - statistics.mean) / std for edge in (low, high)]
    inside = torch.special.ndtr(edges[1]) - torch.special.ndtr(edges[0])
    still = ((statistics.mean > low) & (statistics.mean < high)).to(std)
    smp = torch.where(moves, inside, still) * statistics.smp
    for edge in (low, high):
        smp[moves] += two_slope_smp(statistics.mean[moves] - edge, statistics.var[moves], statistics.slope_var[moves],
                                    statistics.duration)
    return _through(statistics, smp, lambda x: x.clamp(low, high), lambda x: ((x > low) & (x < high)).to(x))


@propagate.register(nn.Tanh)
@propagate.register(nn.Sigmoid)
@propagate.register(nn.GELU)
@propagate.register(nn.SiLU)
@propagate.register(nn.Softplus)
def _smooth(layer, statistics: Statistics) -> Statistics:
    """No kinks of its own; old ones scaled by E|g'(x)|, its mean over a Gaussian value."""
    statistics.require(type(layer).__name__, "gaussian", "stationary")

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            return torch.autograd.grad(layer(inside).sum(), inside)[0]

    passed = slope(_drawn(statistics)[0]).abs().mean(0)
    return _through(statistics, passed * statistics.smp, lambda x: layer(x).detach(), slope)


# Max pooling ----------------------------------------------------------------------------------------------


@propagate.register(nn.MaxPool1d)
@propagate.register(nn.MaxPool2d)
def _max_pool(layer, statistics: Statistics) -> Statistics:
    """Swaps of the lead in every window, old kinks of the winner (`rules.max_pool_smp`)."""
    name = type(layer).__name__
    statistics.require(name, "gaussian", "stationary")
    count = 1 if isinstance(layer, nn.MaxPool1d) else 2
    if len(statistics.shape) != count + 1:
        raise ValueError(f"{name} takes maps of {count} sides, and gets shape {statistics.shape}")
    channels, *sides = statistics.shape
    settings = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")}
    where, outer = windows(settings, tuple(sides))
    each = torch.Size(sides).numel()
    index = torch.cat([torch.where(where < 0, -1, where + channel * each) for channel in range(channels)])
    index = index.to(statistics.mean.device)
    smp = []
    for row in index:
        row = row[row >= 0]
        smp.append(max_pool_smp(statistics.value_cov[row][:, row], statistics.slope_cov[row][:, row],
                                statistics.duration, statistics.mean[row], statistics.smp[row]))

    def winners(x: Tensor) -> Tensor:
        member = x[:, index.clamp(min=0)].masked_fill(index < 0, -torch.inf).argmax(-1, keepdim=True)
        return index.expand(len(x), *index.shape).gather(-1, member)[..., 0]

    values, slopes = _drawn(statistics)
    chosen = winners(values)
    return _described(statistics, torch.stack(smp), values.gather(1, chosen), slopes.gather(1, chosen),
                      (channels, *outer))


# Moments behind what is not linear --------------------------------------------------------------------------


def _drawn(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Gaussian values and slopes with these statistics, ``(M, n)`` each, on Sobol points."""
    n = len(statistics.mean)
    if n > _MOST:
        raise ValueError(f"{n} signals: beyond {_MOST} their joint moments take too long here; predict_network goes "
                         "through whole networks")
    joint = torch.cat([torch.cat([statistics.value_cov, statistics.cross_cov.T], 1),
                       torch.cat([statistics.cross_cov, statistics.slope_cov], 1)])
    power, axes = torch.linalg.eigh(joint)
    root = axes * power.clamp(min=0).sqrt()
    white = math.sqrt(2) * torch.erfinv(2 * sobol(2 * n, _POINTS).to(joint) - 1)
    both = torch.cat([white, -white]) @ root.T
    return statistics.mean + both[:, :n], both[:, n:]


def _through(statistics: Statistics, smp: Tensor, unit, slope) -> Statistics:
    """Behind an elementwise unit with slope ``slope(x)``."""
    values, slopes = _drawn(statistics)
    return _described(statistics, smp, unit(values), slope(values) * slopes, statistics.shape)


def _described(statistics: Statistics, smp: Tensor, values: Tensor, slopes: Tensor, shape) -> Statistics:
    mean, count = values.mean(0), len(values)
    centred = values - mean
    return Statistics(mean, centred.T @ centred / count, slopes.T @ slopes / count, slopes.T @ centred / count,
                      statistics.duration, smp, tuple(shape), False, statistics.stationary)
