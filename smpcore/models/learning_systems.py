"""Small learning problems whose error says little about smoothness, for notebook 14.

Networks of several seeds are trained together: their weights have a leading dimension S.
"""

import copy
import math

import torch
from torch import Tensor, nn

from smpcore.models.descent import adam

__all__ = ["RidgeCnn", "Ridges", "TwoPatchCnn", "patch_data", "ring_inputs", "train_patches", "train_ridges",
           "train_ring"]


class TwoPatchCnn(nn.Module):
    """Σ over two patches and m filters of ReLU(w⁺·x)/m − ReLU(w⁻·x)/m: (P, 2, d) -> (P, 1).

    ``weights`` is (2m, d): the filters of the first class, then those of the second, with fixed readouts ± 1/m.
    """

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        first, second = (x @ self.weights.mT).relu().sum(-2).chunk(2, -1)
        return (first.mean(-1) - second.mean(-1))[..., None]


def patch_data(count: int, signal: float, flipped: float, dimension: int, generator: torch.Generator):
    """Inputs of two patches, one of which is the label times a signal, the other noise.

    Parameters
    ----------
    count, dimension
        Inputs, and numbers d in a patch.
    signal, flipped
        Length of the signal, which lies along the first axis; share of labels that are flipped.
    generator
        Draws on the CPU.

    Returns
    -------
    tuple of Tensor
        Inputs (count, 2, d), the labels ± 1 that the signal has, and those that are given to training.
    """
    label = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    noise = torch.randn(count, dimension, generator=generator)
    noise[:, 0] = 0
    sign = torch.zeros(count, dimension)
    sign[:, 0] = signal * label
    given = torch.where(torch.rand(count, generator=generator) < flipped, -label, label)
    return torch.stack([sign, noise], 1), label, given


def train_patches(x: Tensor, labels: Tensor, seeds: list[int], keep: list[int], *, filters: int = 10,
                  rate: float = 0.1) -> dict[int, Tensor]:
    """Gradient descent on the logistic loss: weights (S, 2m, d) of `TwoPatchCnn` after the steps in ``keep``.

    ``x`` is (S, n, 2, d), ``labels`` (S, n); the seeds draw the first weights, small, on the CPU.
    """
    draws = [torch.randn(2 * filters, x.shape[-1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    weights = (0.01 / x.shape[-1] ** 0.5 * torch.stack(draws)).to(x).requires_grad_()
    kept, patches = {}, x.flatten(1, 2)
    side = torch.cat([torch.ones(filters), -torch.ones(filters)]).to(x) / filters
    for step in range(max(keep) + 1):
        if step in keep:
            kept[step] = weights.detach().clone()
        answer = ((patches @ weights.mT).relu() @ side).unflatten(1, (-1, 2)).sum(-1)
        loss = torch.nn.functional.softplus(-labels * answer).mean(1).sum()
        (slope,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= rate * filters * slope
    return kept


class Ridges(nn.Module):
    """An additive ridge function Σ gₖ(aₖ·x) of three terms: sin 3s, exp(−4s²) and tanh 4s. (P, d) -> (P, 1)."""

    def __init__(self, dimension: int, seed: int):
        super().__init__()
        draw = torch.randn(dimension, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.directions = nn.Parameter(torch.linalg.qr(draw)[0].T.contiguous(), requires_grad=False)  # (3, d)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        one, two, three = (x @ self.directions.to(x).mT).unbind(-1)
        return ((3 * one).sin() + (-4 * two.square()).exp() + (4 * three).tanh())[..., None]


class RidgeCnn(nn.Sequential):
    """Two convolutions over the input's d numbers (padded to d + 2, then d + 4), a fully connected layer, a readout.

    (P, d) -> (P, 1), with the same activation behind each layer but the last.
    """

    def __init__(self, dimension: int, activation: type[nn.Module] = nn.ReLU, channels: int = 8, hidden: int = 64):
        super().__init__(
            nn.Unflatten(1, (1, dimension)), nn.Conv1d(1, channels, 3, padding=2), activation(),
            nn.Conv1d(channels, channels, 3, padding=2), activation(), nn.Flatten(),
            nn.Linear(channels * (dimension + 4), hidden), activation(), nn.Linear(hidden, 1))


def train_ridges(target: Ridges, seed: int, keep: list[int], activation: type[nn.Module] = nn.ReLU, *,
                 batch: int = 256, rate: float = 0.02, device="cpu") -> dict[int, RidgeCnn]:
    """A `RidgeCnn` trained by Adam on fresh normal inputs; copies of it in float64 after the steps in ``keep``."""
    dimension = target.directions.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RidgeCnn(dimension, activation).to(device)
    generator, kept = torch.Generator().manual_seed(seed + 1), {}

    def loss(step):
        if step in keep:
            kept[step] = copy.deepcopy(model).double().eval()
        x = torch.randn(batch, dimension, generator=generator).to(device)
        return (model(x) - target(x)).square().mean()

    adam(loss, model.parameters(), rate, max(keep), cosine=True)
    return kept | {max(keep): model.double().eval()}


def ring_inputs(lengths: Tensor, sites: int, gain: float, generator: torch.Generator) -> Tensor:
    """Random functions on a ring: smooth Gaussian ones, to whose values an error function is applied.

    Parameters
    ----------
    lengths
        (...): correlation length of each, in sites.
    sites
        D, of the ring.
    gain
        Of the error function: small ones leave it Gaussian, large ones give ± 1 with edges.
    generator
        Draws on the CPU.

    Returns
    -------
    Tensor
        (..., D), of unit variance.
    """
    wave = torch.fft.rfftfreq(sites) * 2 * math.pi
    spectrum = torch.exp(-(wave * lengths[..., None]).square() / 2)
    weight = torch.full_like(wave, 2.0)
    weight[0] = 1
    if sites % 2 == 0:
        weight[-1] = 1
    scale = (spectrum.square() * weight).sum(-1, keepdim=True).sqrt()
    noise = torch.randn(*lengths.shape, sites, generator=generator)
    field = torch.fft.irfft(torch.fft.rfft(noise, norm="ortho") * spectrum / scale * sites**0.5, n=sites, norm="ortho")
    pressed = torch.erf(gain * field)
    return pressed / (2 / math.pi * math.asin(2 * gain**2 / (1 + 2 * gain**2))) ** 0.5


def train_ring(seeds: list[int], gain: float, *, sites: int = 40, hidden: int = 10, steps: int = 1500,
               batch: int = 128, rate: float = 0.02, decay: float = 0.003, lengths: tuple[float, float] = (1.5, 3.0),
               device="cpu") -> dict[str, Tensor]:
    """Two-layer ReLU networks that tell short from long correlation lengths on a ring, trained on fresh inputs.

    Small first weights, logistic loss, weight decay on both layers, Adam. Returns the weights: ``w`` (S, hidden, D),
    ``b`` (S, hidden), ``v`` (S, hidden), ``c`` (S, 1); and ``error`` (S,), the share of 4,000 fresh inputs that they
    get wrong.
    """
    side = torch.tensor([1.0, -1.0]).repeat(hidden)[:hidden] * 2 / hidden
    first = [0.05 * torch.randn(hidden, sites, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    weights = [torch.stack(first), torch.zeros(len(seeds), hidden), side.expand(len(seeds), -1).clone(),
               torch.zeros(len(seeds), 1)]
    weights = [part.to(device).requires_grad_() for part in weights]
    generator = torch.Generator().manual_seed(7 + sum(seeds))

    def answered(count):
        label = torch.arange(count) % 2
        length = torch.tensor(lengths)[label].expand(len(seeds), count)
        w, b, v, c = weights
        x = ring_inputs(length, sites, gain, generator).to(w)
        return (2 * label - 1).to(w) * (((x @ w.mT + b[:, None]).relu() @ v[:, :, None])[:, :, 0] + c)

    def loss(_):
        wrong = torch.nn.functional.softplus(-answered(batch)).mean(1).sum()
        return wrong + decay * (weights[0].square().sum() + weights[2].square().sum())

    adam(loss, weights, rate, steps, cosine=True)
    with torch.no_grad():
        error = (answered(4000) < 0).double().mean(1)
    return dict(zip("wbvc", (value.detach() for value in weights), strict=True)) | {"error": error}
