"""Models with every unit that can switch: one table for all that measures inside a model.

`UNITS` has one entry for each operation of `units.TABLE`, `MODELS` the architectures. A case is drawn from
its seed: `case.build(seed)` gives the model, and the two ends of a line through its inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smpcore import units
from smpcore.models.face import cubic_b_spline

__all__ = ["ALL", "MODELS", "TOGETHER", "UNITS", "Case"]


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes
    ----------
    name
        Unique; for `UNITS` it starts with the operation's name in `units.TABLE`.
    make
        Builds it; torch's random state is set before.
    shape
        Of one input.
    straight
        Whether it is piecewise linear.
    jumps
        Whether its value jumps.
    smooth
        Whether it has no switch at all.
    function
        Of an elementwise unit: what the model calls, for networks of other widths.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    straight: bool = True
    jumps: bool = False
    smooth: bool = False
    function: Callable[[Tensor], Tensor] | None = None

    def build(self, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make().double().eval()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
            start, end = 2 * torch.randn(2, *self.shape, dtype=torch.float64)
        return model, start, end


class Then(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _flat(function, width=24, after=None):
    return lambda: nn.Sequential(nn.Linear(6, width), Then(function), nn.Linear(after or width, 2))


def _unit(name, function, after=None, straight=True, jumps=False):
    return Case(name, _flat(function, after=after), (6,), straight, jumps, function=None if after else function)


def _smooth(name, function):
    return Case(name, _flat(function), (6,), straight=False, smooth=True, function=function)


def _map(name, layer, dimensions=2, side=9, channels=3):
    shape = (2, *[side] * dimensions)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    return Case(name, lambda: _sized(nn.Sequential(conv(2, channels, 3, padding=1), layer(), nn.Flatten()), shape),
                shape)


def _sized(features, shape):
    """Features and a linear readout of whatever size they have."""
    with torch.no_grad():
        size = features(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(features, nn.Linear(size, 2))


def _in_place(x):
    x = x * 1
    x.clamp_(min=0)
    return x.add_(0.25)


_STEP = torch.tensor(0.5, dtype=torch.float64)


@units.entry
def shifted_leaky(x, below=0.2):
    """A unit that torch does not have: derivative ``below`` under -1, 1 above, continuous."""
    return units.Hinges("shifted leaky", x, (units.Hinge(at=-1.0, below=below, above=1.0),),
                        output=lambda x: torch.where(x > -1, x, below * (x + 1) - 1))


UNITS = [
    _unit("relu, a function", torch.relu),
    _unit("relu, of functional, in place", lambda x: F.relu(x, inplace=True)),
    _unit("relu, by position in place", lambda x: F.relu(x, True)),
    _unit("relu, a method in place", lambda x: (x * 1).relu_()),
    Case("relu, a module in place", lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(inplace=True),
                                                          nn.Linear(20, 2)), (6,)),
    _unit("leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
    _unit("leaky_relu, in place", lambda x: F.leaky_relu_(x * 1, negative_slope=0.2)),
    _unit("prelu, a function", lambda x: F.prelu(x, torch.full_like(_STEP, 0.3).reshape(1))),
    Case("prelu, one", lambda: nn.Sequential(nn.Linear(6, 20), nn.PReLU(), nn.Linear(20, 2)), (6,)),
    Case("prelu, one per channel", lambda: _sized(nn.Sequential(
        nn.Conv2d(2, 4, 3), _drawn(nn.PReLU(4)), nn.Flatten()), (2, 5, 5)), (2, 5, 5)),
    _unit("rrelu", lambda x: F.rrelu(x, 0.1, 0.4)),
    _unit("elu", lambda x: F.elu(x, 0.5), straight=False),
    _unit("selu", F.selu, straight=False),
    _unit("abs", torch.abs),
    _unit("abs, a builtin", abs),
    _unit("threshold", lambda x: F.threshold(x, 0.3, 0.3)),
    _unit("hardtanh, a function", lambda x: F.hardtanh(x, -0.5, 0.8)),
    Case("hardtanh", lambda: nn.Sequential(nn.Linear(6, 20), nn.Hardtanh(-0.5, 0.8), nn.Linear(20, 2)), (6,)),
    Case("hardtanh, as ReLU6", lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU6(), nn.Linear(20, 2)), (6,)),
    _unit("relu6", lambda x: F.relu6(5 * x)),
    _unit("hardsigmoid", lambda x: F.hardsigmoid(3 * x)),
    _unit("hardswish", lambda x: F.hardswish(3 * x), straight=False),
    _unit("softshrink", F.softshrink),
    _unit("clamp", lambda x: x.clamp(-0.4, 0.7)),
    _unit("clamp, as clip", lambda x: torch.clip(x, max=0.3)),
    _unit("clamp, in place, then written into", _in_place),
    _unit("clamp, tensors", lambda x: torch.clamp(x, -_STEP, x.new_full((24,), 0.4))),
    _unit("clamp_min", lambda x: x.clamp_min(0.1)),
    _unit("clamp_max", lambda x: torch.clamp_max(x, 0.1)),
    _unit("shifted_leaky", lambda x: shifted_leaky(x, 0.4)),
    _smooth("tanh", torch.tanh),
    _smooth("sigmoid", lambda x: (x * 1).sigmoid_()),
    _smooth("gelu", lambda x: F.gelu(x, approximate="tanh")),
    _smooth("silu", lambda x: F.silu(x * 1, inplace=True)),
    _smooth("mish", F.mish),
    _smooth("softplus", lambda x: F.softplus(x, beta=2.0)),
    _smooth("softsign", F.softsign),
    _smooth("logsigmoid", F.logsigmoid),
    _smooth("celu", lambda x: F.celu(x, 0.5)),
    _smooth("tanhshrink", F.tanhshrink),
    _smooth("elu, smooth for α = 1", F.elu),
    _smooth("cubic_b_spline", lambda x: cubic_b_spline(x)),
    _unit("maximum, by name", lambda x: torch.maximum(input=x[:, ::2], other=x[:, 1::2]), after=12),
    _unit("amax, by numpy's names", lambda x: torch.amax(x.reshape(-1, 4, 6), axis=-1, keepdims=True)[..., 0], after=4),
    _unit("max, by numpy's names", lambda x: torch.max(x.reshape(-1, 4, 6), axis=1, keepdims=True)[0][:, 0], after=6),
    _unit("maximum", lambda x: torch.maximum(x[:, ::2], x[:, 1::2]), after=12),
    _unit("minimum", lambda x: torch.minimum(x[:, ::2], x[:, :1]), after=12),
    _unit("fmax", lambda x: torch.fmax(x[:, ::2], x[:, 1::2]), after=12),
    _unit("fmin", lambda x: x[:, ::2].fmin(x[:, 1::2]), after=12),
    _unit("max, over a dimension", lambda x: x.unflatten(1, (6, 4)).max(2)[0], after=6),
    _unit("max, of two", lambda x: torch.max(x[:, ::2], x[:, 1::2]), after=12),
    _unit("max, maxout", lambda x: x.unflatten(1, (6, 4)).max(dim=-1, keepdim=True).values.flatten(1), after=6),
    _unit("min, over a dimension", lambda x: torch.min(x.unflatten(1, (6, 4)), dim=1).values, after=4),
    _unit("amax", lambda x: x.reshape(-1, 4, 3, 2).amax((1, 3)), after=3),
    _unit("amin", lambda x: torch.amin(x.reshape(-1, 4, 6), -1), after=4),
    _map("max_pool1d", lambda: nn.MaxPool1d(3, 2, padding=1), 1, 31),
    _map("max_pool2d, 2/2", lambda: nn.MaxPool2d(2)),
    _map("max_pool2d, 3/2, ceil mode", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), side=8),
    _map("max_pool2d, padding and dilation", lambda: nn.MaxPool2d(3, 2, padding=1, dilation=2)),
    _map("max_pool2d, a function", lambda: Then(lambda x: torch.max_pool2d(x, 2, 2))),
    _map("max_pool2d, with indices", lambda: Then(lambda x: F.max_pool2d(x, 2, return_indices=True)[0])),
    _map("max_pool3d", lambda: nn.MaxPool3d((2, 3, 2), stride=2, padding=1), 3, 5),
    _map("adaptive_max_pool1d", lambda: nn.AdaptiveMaxPool1d(5), 1, 17),
    _map("adaptive_max_pool2d", lambda: nn.AdaptiveMaxPool2d((3, 4))),
    _map("adaptive_max_pool3d", lambda: nn.AdaptiveMaxPool3d(2), 3, 5),
    _unit("hardshrink", F.hardshrink, jumps=True),
    _unit("heaviside", lambda x: x + torch.heaviside(x, _STEP), jumps=True),
    _unit("sign", lambda x: x + x.sign(), jumps=True),
    _unit("round", lambda x: x + torch.round(2 * x), jumps=True),
    _unit("floor", lambda x: x + torch.floor(x), jumps=True),
    _unit("ceil", lambda x: x + torch.ceil(x), jumps=True),
    _unit("trunc", lambda x: x + torch.trunc(x), jumps=True),
    _unit("frac", torch.frac, jumps=True),
]


def _drawn(prelu):
    nn.init.uniform_(prelu.weight, -0.3, 0.6)
    return prelu


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.na, self.nb = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.nb(self.b(self.act(self.na(self.a(x)))))
        y += x
        return self.act(y)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.one, self.two = nn.Linear(6, 16), nn.Linear(16, 1), nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.body(x))
        return torch.cat([self.one(x), torch.relu(self.two(x))], 1)


class Transformer(nn.Module):
    """Tokens first inside, as torch's own layers have it by default."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="relu")
        self.read = nn.Linear(8, 2)

    def forward(self, x):
        return self.read(self.layer(self.embed(x).transpose(0, 1)).mean(0))


class Windows(nn.Module):
    """Folds patches into the batch, as window attention does, and puts channels before samples."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.read = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(24, 2)

    def forward(self, x):
        x = torch.relu(self.one(x.reshape(-1, 4)))
        x = self.two(x).reshape(-1, 4, 6).permute(1, 0, 2).reshape(-1, 6).relu_()
        return self.read(x.reshape(4, -1, 6).permute(1, 2, 0).flatten(1))


def _network(name, layers, shape=(2, 8, 8), straight=True):
    return Case(name, lambda: _sized(nn.Sequential(*layers(), nn.Flatten()), shape), shape, straight)


MODELS = [
    Case("mlp", lambda: nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(),
                                      nn.Linear(30, 2)), (6,)),
    _network("convolutions and poolings", lambda: [
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)]),
    _network("average pooling", lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2)]),
    _network("residual, batch norm", lambda: [nn.Conv2d(2, 3, 3), Residual(3)]),
    _network("maximum behind PReLU", lambda: [nn.Conv2d(2, 4, 3), _drawn(nn.PReLU(4)), nn.MaxPool2d(2)]),
    _network("ReLU behind ReLU", lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2, 1)]),
    _network("ReLU6 behind leaky ReLU", lambda: [nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.1), nn.ReLU6()]),
    _network("transposed convolution", lambda: [
        nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3, stride=2), nn.ReLU()]),
    _network("one dimension", lambda: [nn.Conv1d(2, 6, 3), nn.ReLU(), nn.MaxPool1d(2)], (2, 20)),
    _network("three dimensions", lambda: [nn.Conv3d(1, 3, 3), nn.ReLU(), nn.MaxPool3d(2)], (1, 6, 6, 6)),
    _network("group norm", lambda: [nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()], straight=False),
    _network("layer norm", lambda: [nn.Flatten(), nn.Linear(128, 16), nn.LayerNorm(16), nn.ReLU()],
             straight=False),
    Case("transformer", Transformer, (5, 4), straight=False),
    Case("samples in other dimensions", Windows, (4, 4)),
    Case("two heads", Heads, (6,)),
    Case("a module used twice", lambda: _twice(), (6,)),
]


def _twice():
    act = nn.ReLU()
    return nn.Sequential(nn.Linear(6, 16), act, nn.Linear(16, 16), act, nn.Linear(16, 2))


def _crelu(x):
    return torch.cat([torch.relu(x), torch.relu(-x)], 1)


def _both(x):
    a, b = x.chunk(2, 1)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)


def _leaky_both(x):
    return torch.cat([nn.functional.leaky_relu(x, 0.3), torch.relu(-x)], 1)


class Pyramid(nn.Module):
    """The same overlapping pooling three times over, and every stage read."""

    def forward(self, x):
        stages = [x]
        for _ in range(3):
            stages.append(nn.functional.max_pool2d(stages[-1], 3, 1, 1))
        return torch.cat(stages, 1)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


#: Units that switch together: magnitudes added one by one would count them twice.
TOGETHER = [
    _network("overlapping pools, 3/2", lambda: [nn.Conv2d(2, 6, 3), nn.MaxPool2d(3, 2)], (2, 11, 11)),
    _network("overlapping pools, 2/1", lambda: [nn.Conv2d(2, 6, 3), nn.MaxPool2d(2, 1)]),
    _network("overlapping pools, 3/1", lambda: [nn.Conv2d(2, 6, 3), nn.MaxPool2d(3, 1)]),
    _network("overlapping pools behind ReLU", lambda: [nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 1)]),
    _unit("CReLU", _crelu, after=48),
    _unit("a maximum beside a minimum", _both),
    _network("CReLU behind PReLU", lambda: [nn.Conv2d(2, 4, 3), _drawn(nn.PReLU(4)), Apply(_crelu)]),
    _network("pooling behind CReLU behind PReLU", lambda: [
        nn.Conv2d(2, 4, 3), nn.PReLU(), Apply(_crelu), nn.MaxPool2d(2)]),
    _network("three leaky units in a row, two sided", lambda: [
        nn.Conv2d(2, 4, 3), nn.PReLU(), nn.LeakyReLU(0.1), Apply(_leaky_both)]),
    _network("two sides behind a maximum", lambda: [
        nn.Conv2d(2, 4, 3), Apply(lambda x: torch.maximum(x, -0.3 * x) + 0.5 * x), Apply(_leaky_both)]),
    _network("overlapping pools in a row", lambda: [nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 1), nn.MaxPool2d(3, 1)],
             (2, 11, 11)),
    _network("a pyramid of pools behind ReLU", lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), Pyramid()]),
]

ALL = [*UNITS, *MODELS, *TOGETHER]
