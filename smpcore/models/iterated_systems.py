"""Small networks that iterate, for notebook 13: velocity fields of differential equations, and recurrent networks that
forecast a delay equation."""

import math

import torch
from torch import Tensor, nn

from smpcore.models.descent import adam

__all__ = ["Forecaster", "mackey_glass", "prune", "train_field", "train_forecaster", "two_moons"]


def two_moons(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2): two half circles of radius 1 that reach into each other, with a noise of 0.1; drawn on the CPU."""
    angle, side = math.pi * torch.rand(count, generator=generator), torch.arange(count) % 2
    place = torch.stack([angle.cos() - 0.5 + side, angle.sin() * (1 - 2 * side) + 0.25 * (2 * side - 1)], 1)
    return place + 0.1 * torch.randn(count, 2, generator=generator)


def train_field(field: nn.Module, seed: int, steps: int, *, batch: int = 256, rate: float = 0.005) -> nn.Module:
    """Train a velocity field (P, 3) -> (P, 2) of time and place to carry normal draws onto `two_moons`, in place.

    By flow matching: at a random time on the straight way from a draw to a point of the moons, the velocity of that way
    is the target. Weights that are exactly 0 stay 0, so that a pruned field stays pruned. Draws on the CPU.
    """
    generator, home = torch.Generator().manual_seed(seed), next(field.parameters())
    masks = [(parameter != 0).to(parameter) for parameter in field.parameters()]

    def keep_zeros():
        with torch.no_grad():
            for parameter, mask in zip(field.parameters(), masks, strict=True):
                parameter *= mask

    def loss(_):
        keep_zeros()
        start, end = torch.randn(batch, 2, generator=generator), two_moons(batch, generator)
        time = torch.rand(batch, 1, generator=generator)
        there, velocity = torch.cat([time, start + time * (end - start)], 1).to(home), (end - start).to(home)
        return (field(there) - velocity).square().mean()

    adam(loss, field.parameters(), rate, steps, cosine=True)
    keep_zeros()
    return field


def prune(model: nn.Module, share: float) -> nn.Module:
    """Set the smallest ``share`` of all weights of the linear layers (not their biases) to 0, in place."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    bound = torch.cat([layer.weight.detach().abs().flatten() for layer in layers]).quantile(share)
    with torch.no_grad():
        for layer in layers:
            layer.weight *= (layer.weight.abs() > bound).to(layer.weight)
    return model


def mackey_glass(count: int, seed: int, *, spacing: float = 3.0, delay: float = 17.0, step: float = 0.1) -> Tensor:
    """(count,) samples of Mackey and Glass's equation, x' = 0.2 x(t − 17)/(1 + x(t − 17)¹⁰) − 0.1 x, in float64.

    Runge and Kutta's rule at ``step`` from a random constant past, of which 300 units of time are left out; shifted and
    scaled to about mean 0 and variance 1.
    """
    lag, every, first = round(delay / step), round(spacing / step), round(300 / step)
    start = 1.2 + 0.2 * (torch.rand((), generator=torch.Generator().manual_seed(seed)) - 0.5).item()
    x = [start] * (lag + 1)
    for _ in range(first + every * count):
        now, old, later = x[-1], x[-1 - lag], x[-lag]
        pull = [0.2 * past / (1 + past**10) for past in (old, (old + later) / 2, later)]
        one = pull[0] - 0.1 * now
        two = pull[1] - 0.1 * (now + step / 2 * one)
        three = pull[1] - 0.1 * (now + step / 2 * two)
        four = pull[2] - 0.1 * (now + step * three)
        x.append(now + step / 6 * (one + 2 * two + 2 * three + four))
    return (torch.tensor(x[lag + 1 + first:][::every][:count], dtype=torch.float64) - 0.93) / 0.23


class Forecaster(nn.Module):
    """A recurrent cell that reads a window (P, W) and then forecasts step by step: (P, horizon).

    With ``feedback`` each forecast is the input of the next step; without, that input is 0. ``noise`` is the standard
    deviation of the noise that is added to the state in each step of the forecast: in training it is drawn again for
    each forecast, in evaluation it is fixed by ``seed``, so that the forecast is a function of its window.
    """

    def __init__(self, cell: str, horizon: int, *, hidden: int = 24, feedback: bool = True, noise: float = 0.0,
                 seed: int = 0):
        super().__init__()
        self.cell = nn.GRUCell(1, hidden) if cell == "gru" else nn.RNNCell(1, hidden, nonlinearity=cell)
        self.read, self.feedback, self.noise = nn.Linear(hidden, 1), feedback, noise
        self.frozen = noise * torch.randn(horizon, hidden, generator=torch.Generator().manual_seed(seed))

    def forward(self, window: Tensor) -> Tensor:
        """See the class."""
        state, found = window.new_zeros(len(window), self.read.in_features), []
        for x in window.unbind(1):
            state = self.cell(x[:, None], state)
        for frozen in self.frozen.to(window):
            found.append(self.read(state))
            state = state + (self.noise * torch.randn_like(state) if self.training else frozen)
            state = self.cell(found[-1] if self.feedback else torch.zeros_like(found[-1]), state)
        return torch.cat(found, 1)


def train_forecaster(model: Forecaster, series: Tensor, window: int, seed: int, steps: int, *, batch: int = 64,
                     rate: float = 0.01) -> Forecaster:
    """Train a `Forecaster` in place by Adam on the squared error, on random windows of a series (N,)."""
    generator, horizon = torch.Generator().manual_seed(seed), len(model.frozen)
    rows = series.unfold(0, window + horizon, 1).to(next(model.parameters()))

    def loss(_):
        part = rows[torch.randint(len(rows), (batch,), generator=generator).to(rows.device)]
        return (model(part[:, :window]) - part[:, window:]).square().mean()

    adam(loss, model.train().parameters(), rate, steps, longest=1.0)
    return model.eval()
