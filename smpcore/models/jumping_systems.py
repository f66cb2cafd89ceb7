"""Small networks whose value jumps, for notebook 12: threshold units, and spiking neurons whose input is a strain or a
grid seen from above."""

import itertools
import math

import torch
from torch import Tensor, nn

import smpcore
from smpcore.arguments import POSITIVE, TENSOR, checked, one_of
from smpcore.models.descent import adam

__all__ = ["GridCnn", "Heaviside", "Shallow", "SpikingGridCnn", "SpikingStress", "convex_network", "grid_scene",
           "train_grid_cnn", "train_shallow", "train_stress"]


class Heaviside(nn.Module):
    """1 where the input is at least 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Tensor of any shape -> Tensor of that shape."""
        return torch.heaviside(x, torch.ones((), dtype=x.dtype, device=x.device))


def _straight_through(x: Tensor) -> Tensor:
    """The threshold in the forward pass, the derivative of a sigmoid in the backward pass."""
    soft = torch.sigmoid(x)
    return (x >= 0).to(x) - soft.detach() + soft


class Shallow(nn.Module):
    """Σ wⱼ σ(uⱼ x + bⱼ) + c, and a x where the units are ReLUs; (P, 1) -> (P, 1)."""

    def __init__(self, u: Tensor, b: Tensor, w: Tensor, c: Tensor, a: Tensor | None = None):
        super().__init__()
        self.u, self.b, self.w, self.c, self.a = u, b, w, c, a
        self.unit = Heaviside() if a is None else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        line = self.c if self.a is None else self.a * x + self.c
        return self.unit(x * self.u + self.b) @ self.w[:, None] + line


@checked(x=TENSOR, y=TENSOR, strength=POSITIVE, unit=one_of(("threshold", "relu")))
def convex_network(x: Tensor, y: Tensor, strength: float, unit: str = "threshold") -> Shallow:
    """The network with the smallest ½Σ(f(xᵢ) − yᵢ)² + strength ‖w‖₁ among all of its kind with one hidden layer.

    Threshold units are 1(x ≥ τ), one for each of the n − 1 ways to divide the data in two; ReLUs are max(0, x − τ),
    with a kink at each inner data point. The constant, and for ReLUs the straight line, are not penalised. This is a
    Lasso on those columns (T. Ergen and others, "Globally Optimal Training of Neural Networks with Threshold Activation
    Functions", ICLR 2023, abstract), solved by coordinate descent; units of weight 0 are dropped.

    Parameters
    ----------
    x, y
        (n,): the data, in any order, x all different.
    strength
        Of the penalty.
    unit
        ``"threshold"`` or ``"relu"``; a ReLU's weight is shared equally between its two layers.

    Returns
    -------
    Shallow
        (P, 1) -> (P, 1), in float64.

    Raises
    ------
    TypeError, ValueError
        For what are not tensors, a strength that is not positive, another unit.
    """
    lasso = smpcore.need("sklearn.linear_model").Lasso(alpha=strength / len(x), fit_intercept=False, tol=1e-14,
                                                       max_iter=1_000_000)
    x, order = x.double().sort()
    y = y.double()[order]
    cuts = (x[1:] + x[:-1]) / 2 if unit == "threshold" else x[1:-1]
    step = (x[:, None] - cuts > 0).double()
    features = step if unit == "threshold" else step * (x[:, None] - cuts)
    free = torch.ones_like(x)[:, None] if unit == "threshold" else torch.stack([torch.ones_like(x), x], 1)
    basis = torch.linalg.qr(free)[0]

    def without_free(part):
        return part - basis @ (basis.T @ part)

    lasso.fit(without_free(features).numpy(), without_free(y).numpy())
    w = torch.from_numpy(lasso.coef_)
    rest = torch.linalg.lstsq(free, (y - features @ w)[:, None]).solution[:, 0]
    cuts, w = cuts[w != 0], w[w != 0]
    scale = torch.ones_like(w) if unit == "threshold" else w.abs().sqrt()
    return Shallow(scale, -scale * cuts, w / scale, rest[0], rest[1] if unit == "relu" else None)


def train_shallow(x: Tensor, y: Tensor, strengths: Tensor, unit: str = "threshold", *, hidden: int = 100,
                  steps: int = 2000, rate: float = 0.02, seed: int = 0) -> list[Shallow]:
    """Networks like those of `convex_network`, trained by gradients: Adam on the same sum, all of them at once.

    Threshold units get their gradients by a straight-through estimator (the threshold in the forward pass, a sigmoid's
    derivative in the backward pass) and the penalty strength ‖w‖₁; ReLUs get weight decay, strength ½Σ(uⱼ² + wⱼ²).

    Parameters
    ----------
    x, y
        (S, n): the data of each network.
    strengths
        (S,): of each penalty.
    unit, hidden, steps, rate, seed
        ``"threshold"`` or ``"relu"``; units, steps of Adam and its first learning rate, which falls to 0; draws the
        first weights, on the CPU.

    Returns
    -------
    list of Shallow
        In float64, on the data's device.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(3, len(x), hidden, generator=generator, dtype=torch.float64).to(x.device)
    signs = torch.where(first[0] < 0.5, -1.0, 1.0)
    sharp = 20.0 if unit == "threshold" else 1.0
    weights = {"u": signs * sharp, "b": -signs * sharp * first[1], "w": (2 * first[2] - 1) / hidden**0.5,
               "c": y.mean(1, keepdim=True), "a": torch.zeros_like(y[:, :1])}
    weights = {name: value.clone().requires_grad_() for name, value in weights.items()}

    def loss(_):
        u, b, w, c, a = weights.values()
        inner = x[:, :, None] * u[:, None] + b[:, None]
        if unit == "threshold":
            answer, price = _straight_through(inner), w.abs()
        else:
            answer, price = inner.relu(), (u.square() + w.square()) / 2
        answer = (answer @ w[:, :, None])[:, :, 0] + c + (a * x if unit == "relu" else 0)
        return ((answer - y).square().sum(1) / 2 + strengths * price.sum(1)).sum()

    adam(loss, weights.values(), rate, steps, cosine=True)
    u, b, w, c, a = (value.detach() for value in weights.values())
    return [Shallow(u[s], b[s], w[s], c[s], a[s] if unit == "relu" else None) for s in range(len(x))]


CELLS = 16  #: on a side of the grid, one metre each


def grid_scene(place: Tensor, heading: Tensor, poles: Tensor) -> Tensor:
    """A car and some poles on a grid seen from above, as a lidar's returns fill its cells.

    Parameters
    ----------
    place
        (P, 2): the car's centre in metres, x and y, from a corner of the grid of 16 by 16 metres.
    heading
        (P,): in radians.
    poles
        (P, K, 2) or (K, 2): in metres.

    Returns
    -------
    Tensor
        (P, 1, 16, 16) in [0, 1]: how full each cell of a metre is; edges are 0.3 m soft, so that it is smooth.
    """
    middle = torch.arange(CELLS, dtype=place.dtype, device=place.device) + 0.5
    at = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1)
    off = at - place[:, None, None]
    cos, sin = heading.cos()[:, None, None], heading.sin()[:, None, None]
    along, across = off[..., 0] * cos + off[..., 1] * sin, off[..., 1] * cos - off[..., 0] * sin
    car = torch.sigmoid((2.25 - (along.square() + 1e-4).sqrt()) / 0.3) \
        * torch.sigmoid((0.95 - (across.square() + 1e-4).sqrt()) / 0.3)
    pole = torch.exp(-(at - poles[..., None, None, :]).square().sum(-1) / 0.5).sum(-3)
    return (1 - (1 - car) * torch.exp(-pole))[:, None]


class GridCnn(nn.Module):
    """Two 3x3 convolutions with ReLU and a third to one map, whose soft-argmax is the car's place.

    (P, 1, 16, 16) -> (P, 2), in metres.
    """

    def __init__(self, channels: int = 8):
        super().__init__()
        widths = [1, channels, channels, 1]
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(widths))

    def place(self, score: Tensor) -> Tensor:
        """(P, 1, 16, 16) -> (P, 2): the mean place under the softmax of the map."""
        share = score.flatten(1).softmax(1).unflatten(1, (CELLS, CELLS))
        middle = torch.arange(CELLS, dtype=score.dtype, device=score.device) + 0.5
        return torch.stack([share.sum(1) @ middle, share.sum(2) @ middle], 1)

    def forward(self, grid: Tensor) -> Tensor:
        """See the class."""
        for layer in self.layers[:-1]:
            grid = layer(grid).relu()
        return self.place(self.layers[-1](grid))


def _scenes(count: int, generator: torch.Generator, device) -> tuple[Tensor, Tensor]:
    draw = torch.rand(count, 9, generator=generator).to(device)
    place = 4 + 8 * draw[:, :2]
    return grid_scene(place, 2 * math.pi * draw[:, 2], CELLS * draw[:, 3:].unflatten(1, (3, 2))), place


def train_grid_cnn(seed: int, *, steps: int = 400, batch: int = 32, device="cpu") -> GridCnn:
    """A `GridCnn` in float32, trained by Adam on fresh scenes (a car and three poles) to say where the car is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GridCnn().to(device)

    def loss(_):
        grids, places = _scenes(batch, generator, device)
        return (model(grids) - places).square().mean()

    adam(loss, model.parameters(), 0.01, steps)
    return model.eval()


class SpikingGridCnn(nn.Module):
    """A trained `GridCnn` with integrate-and-fire neurons in place of its ReLUs, rate coded over ``steps`` time steps.

    The grid is a constant input. A neuron adds its input to its potential; when the potential reaches the threshold
    (the largest activation of its layer on 256 scenes), it sends a spike of that size and subtracts it from the
    potential. The last map is computed from the second layer's mean spikes. Potentials start at half a threshold.
    """

    def __init__(self, model: GridCnn, steps: int):
        super().__init__()
        self.cnn, self.steps = model, steps
        home = next(model.parameters())
        x, _ = _scenes(256, torch.Generator().manual_seed(99_991), home.device)
        x, thresholds = x.to(home), []
        with torch.no_grad():
            for layer in model.layers[:-1]:
                x = layer(x).relu()
                thresholds.append(float(x.max()))
        self.thresholds = thresholds

    def forward(self, grid: Tensor) -> Tensor:
        """(P, 1, 16, 16) -> (P, 2), in metres."""
        first, second, last = self.cnn.layers
        current, total = first(grid), 0.0
        low, high = self.thresholds
        one, two = torch.full_like(current, low / 2), torch.full_like(current, high / 2)
        for _ in range(self.steps):
            one = one + current
            spikes = low * Heaviside()(one - low)
            one, two = one - spikes, two + second(spikes)
            spikes = high * Heaviside()(two - high)
            two, total = two - spikes, total + spikes
        return self.cnn.place(last(total / self.steps))


def stress(strain: Tensor) -> Tensor:
    """Ramberg and Osgood's law, ε = σ + ½σ⁵, solved for σ ≥ 0 by Newton's method; any shape, both in units of the
    elastic limit's."""
    guess = strain.clone()
    for _ in range(30):
        guess = guess - (guess + guess**5 / 2 - strain) / (1 + 2.5 * guess**4)
    return guess


class SpikingStress(nn.Module):
    """Two layers of leaky integrate-and-fire neurons whose input is a strain, constant for ``steps`` time steps.

    (P, 1) -> (P, 3): the stress from the same spikes in three ways, with separate weights: from their mean over time;
    from the mean over time of the potential of a leaky neuron that sends no spikes; from this potential at the last
    step. Weights may have a leading dimension of networks, and then inputs have it too: (S, P, 1) -> (S, P, 3).
    """

    def __init__(self, weights: dict[str, Tensor], steps: int, leak: float = 0.9, spike=None):
        super().__init__()
        self.weights, self.steps, self.leak = weights, steps, leak
        self.spike = spike or smpcore.need("snntorch.surrogate").fast_sigmoid(slope=10)

    def forward(self, strain: Tensor) -> Tensor:
        """See the class."""
        weights = {name: value.to(strain.dtype) for name, value in self.weights.items()}
        current = strain @ weights["in"] + weights["bias"]
        first = second = memory = total = potential = 0.0
        for _ in range(self.steps):
            first = self.leak * first + current
            spikes = self.spike(first - 1).to(strain)
            first = first - spikes
            second = self.leak * second + spikes @ weights["between"] + weights["bias between"]
            spikes = self.spike(second - 1).to(strain)
            second = second - spikes
            total = total + spikes
            memory = self.leak * memory + (1 - self.leak) * spikes
            potential = potential + memory
        found = torch.stack([total / self.steps, potential / self.steps, memory], -2)
        return (found * weights["read"][..., None, :, :]).sum(-1) + weights["out"]


def train_stress(seeds: list[int], steps: int, *, hidden: int = 24, training: int = 200,
                 device="cpu") -> list[SpikingStress]:
    """One `SpikingStress` for each seed, trained together by surrogate gradients on random strains in [0, 2]."""
    parts = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        draw = {"in": (1, hidden), "bias": (1, hidden), "between": (hidden, hidden), "bias between": (1, hidden),
                "read": (3, hidden), "out": (1, 3)}
        draw = {name: torch.randn(shape, generator=generator) for name, shape in draw.items()}
        scale = {"in": 0.3, "bias": 0.2, "between": 1.5 / hidden**0.5, "bias between": 0.2,
                 "read": 1.0 / hidden**0.5, "out": 0.0}
        parts.append({name: scale[name] * value for name, value in draw.items()})
    weights = {name: torch.stack([part[name] for part in parts]).to(device).requires_grad_() for name in parts[0]}
    together = SpikingStress(weights, steps)
    generator = torch.Generator().manual_seed(1 + sum(seeds))

    def loss(_):
        strain = 2 * torch.rand(len(seeds), 64, 1, generator=generator).to(device)
        return (together(strain) - stress(strain)).square().mean((1, 2)).sum()

    adam(loss, weights.values(), 0.02, training)
    return [SpikingStress({name: value[s].detach() for name, value in weights.items()}, steps)
            for s in range(len(seeds))]
