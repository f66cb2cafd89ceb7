"""Small convolutional regressors, trained to find the position of a moving blob or the angles of an ellipsoid.

Notebooks 07, 08 and 10 examine them. A `Recipe` holds everything that determines one network, its
seed included: on the same machine it trains to the same network. The weights of some are shipped (`STORED`), so that
notebooks have the same ones on every machine and need not train them; `python -m smpcore.models.regressors` trains
and writes them.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smpcore import paths
from smpcore.arguments import FUNCTION, Kind, check, checked, one_of, optional, whole
from smpcore.arguments import device as devices
from smpcore.models.descent import adam

__all__ = ["ACTIVATIONS", "POOLINGS", "TASKS", "Recipe", "Trained", "regressor", "stored", "train"]


class CentredSoftplus(nn.Softplus):
    """log((1 + exp(βx))/2)/β: softplus, lowered so that 0 stays 0.

    Plain softplus adds 0.69/β in every unit of every layer, which in an untrained network is larger than the signal. A
    constant changes neither kinks nor curvature.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Tensor of any shape -> Tensor of that shape."""
        return super().forward(input) - math.log(2) / self.beta


#: Activations by name; the two sharp softplus are the hard cases of forensics.
ACTIVATIONS = {
    "relu": nn.ReLU, "leaky relu": lambda: nn.LeakyReLU(0.1), "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU,
    "softplus": CentredSoftplus, "softplus 20": lambda: CentredSoftplus(20.0),
    "softplus 50": lambda: CentredSoftplus(50.0),
}
class Blur(nn.Module):
    """Every second place of a map smoothed by the binomial filter (1, 2, 1)/4 both ways (R. Zhang, "Making
    Convolutional Networks Shift-Invariant Again", ICML 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """(P, C, H, W) -> (P, C, ⌈H/2⌉, ⌈W/2⌉)."""
        line = torch.tensor([0.25, 0.5, 0.25]).to(x)
        kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), "replicate"), kernel, stride=2,
                                    groups=x.shape[1])


#: How a block halves the picture: a layer after the activation, or a convolution of stride 2.
POOLINGS = {
    "max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2), "stride": None, "blur": Blur,
    "max blur": lambda: nn.Sequential(nn.MaxPool2d(2, 1), Blur()),
}
_RATE = 0.02  # highest learning rate
#: The tasks: the position of a blob (x and y), or how an ellipsoid is turned (two angles).
TASKS = ("position", "angles")


@dataclass(frozen=True)
class Recipe:
    """Everything about one trained regressor.

    Attributes
    ----------
    activation, pooling, task
        Names in `ACTIVATIONS`, `POOLINGS`, `TASKS`.
    channels
        Of the first of three blocks; the second has as many, the third twice as many.
    size
        Pixels on a side of the pictures, at least 8.
    steps, batch
        Steps of Adam and fresh pictures in each.
    seed
        Draws the weights and the pictures, on the CPU.
    """

    activation: str = "relu"
    pooling: str = "max"
    task: str = "position"
    channels: int = 6
    size: int = 16
    steps: int = 600
    batch: int = 32
    seed: int = 0

    def __post_init__(self):
        check(vars(self), {
            "activation": one_of(ACTIVATIONS), "pooling": one_of(POOLINGS), "task": one_of(TASKS), "channels": whole(),
            "size": whole(8), "steps": whole(0), "batch": whole(), "seed": whole(0)})

    @property
    def kinked(self) -> bool:
        """Whether the network has units that make kinks."""
        return self.activation in ("relu", "leaky relu") or self.pooling in ("max", "max blur")

    @property
    def sharp(self) -> bool:
        """Whether it is smooth but bends sharply: softplus with β of at least 20."""
        return self.activation.startswith("softplus ") and not self.kinked

    def path(self):
        """The path that the network is sampled on, t in [0, 2π]; its pictures are not among those of the training."""
        if self.task == "position":
            return paths.blob(size=self.size)
        return paths.ellipsoid(size=self.size)

    def paths(self) -> list:
        """Four paths: `path`, and three that differ in reach, turns and speed."""
        if self.task == "position":
            others = [paths.blob(size=self.size, reach=reach, turns=turns)
                      for reach, turns in (((0.3, 0.1), -1.0), ((0.12, 0.28), 2.0), ((0.2, 0.25), 0.0))]
        else:
            others = [paths.ellipsoid(size=self.size, reach=reach) for reach in ((0.5, 0.65), (1.0, 0.3), (0.7, 0.45))]
        return [self.path(), *others]

    def answers(self, times: Tensor) -> Tensor:
        """(P,) -> (P, 2): what the network should answer on its path."""
        path = self.path()
        return path.position(times) if self.task == "position" else path.angles(times)


@dataclass(frozen=True)
class Trained:
    """A trained network: its ``recipe``, the ``model`` in evaluation mode, and its errors on fresh pictures.

    ``test_error`` is the root mean square of answer minus truth over 512 pictures, divided by the standard
    deviation of the truth: 1 is what the best constant answer gets. ``before`` is the same before training.
    """

    recipe: Recipe
    model: nn.Module
    test_error: float
    before: float

    @checked(samples=whole(2), chunk=whole(), path=optional(FUNCTION))
    def curves(self, samples: int, *, chunk: int = 1000, path: Callable | None = None) -> tuple[Tensor, float]:
        """The outputs along a path, the recipe's where None: (2, samples) float64 on the CPU, and the spacing in t."""
        times = torch.linspace(0, 2 * torch.pi, samples, dtype=torch.float64)
        place, path = next(self.model.parameters()).device, path or self.recipe.path()
        model = copy.deepcopy(self.model).to(torch.float64)
        with torch.no_grad():
            parts = [model(path(part.to(place))) for part in times.split(chunk)]
        return torch.cat(parts).T.cpu().contiguous(), float(times[1] - times[0])


_RECIPE = Kind(Recipe, ": it must be a Recipe")


@checked(recipe=_RECIPE)
def regressor(recipe: Recipe) -> nn.Sequential:
    """The untrained network: three blocks of convolution, activation and halving, then a linear readout.

    (P, 1, size, size) -> (P, 2), float32, PyTorch's own initialisation under the recipe's seed. A TypeError for what is
    not a `Recipe`.
    """
    layers, before = [], 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for width in (recipe.channels, recipe.channels, 2 * recipe.channels):
            stride = 2 if recipe.pooling == "stride" else 1
            layers += [nn.Conv2d(before, width, 3, padding=1, stride=stride), ACTIVATIONS[recipe.activation]()]
            if POOLINGS[recipe.pooling] is not None:
                layers.append(POOLINGS[recipe.pooling]())
            before = width
        features = nn.Sequential(*layers, nn.Flatten())
        size = features(torch.zeros(1, 1, recipe.size, recipe.size)).shape[1]
        return nn.Sequential(*features, nn.Linear(size, 2)).eval()


#: The networks whose weights are shipped: five seeds of each kind, and of one kind five trained with half the steps.
STORED = [Recipe(activation, pooling, steps=steps, seed=seed)
          for activation, pooling, steps in [("relu", "max", 300), ("relu", "average", 300), ("tanh", "max", 300),
                                             ("tanh", "average", 300), ("gelu", "average", 300), ("relu", "max", 150)]
          for seed in range(5)]
_FILE = Path(__file__).with_name("regressors.npz")


@checked(recipe=_RECIPE)
def stored(recipe: Recipe, *, device: torch.device | str = "cpu") -> Trained | None:
    """The trained regressor whose weights are shipped, with its errors computed anew; None for one that is not.

    A TypeError for what is not a `Recipe`, a ValueError for a device that is not there.
    """
    if recipe not in STORED:
        return None
    def shipped(model):
        with np.load(_FILE) as weights:
            flat = torch.from_numpy(weights[json.dumps(vars(recipe))])
        nn.utils.vector_to_parameters(flat.to(next(model.parameters()).device), model.parameters())

    return _judged(recipe, device, shipped)


@checked(recipe=_RECIPE, penalty=optional(FUNCTION))
def train(recipe: Recipe, *, device: torch.device | str = "cpu",
          penalty: Callable[[nn.Module, int], Tensor] | None = None) -> Trained:
    """Train one regressor on fresh pictures, by Adam on the squared error.

    Parameters
    ----------
    recipe
        What to train; the same recipe gives the same network on the same machine.
    device
        Where. Random numbers are drawn on the CPU, so that every device sees the same pictures.
    penalty
        ``penalty(model, step)`` gives a scalar that is added to the squared error at each step, from 0 on.

    Raises
    ------
    TypeError, ValueError
        For what is not a `Recipe`, a device that is not there, a penalty that is no function.
    """
    generator = torch.Generator().manual_seed(100_003 * (recipe.seed + 1))

    def trained(model):
        def loss(step):
            pictures, answers = _pictures(recipe, recipe.batch, generator, next(model.parameters()).device)
            missed = nn.functional.mse_loss(model(pictures), answers)
            return missed if penalty is None else missed + penalty(model, step)

        adam(loss, model.train().parameters(), _RATE, recipe.steps, warm_up=0.15)
        model.eval()

    return _judged(recipe, device, trained)


def _judged(recipe: Recipe, device, taught: Callable[[nn.Module], None]) -> Trained:
    """The recipe's network, which ``taught`` changes, with its errors on the same pictures before and after."""
    device = devices.resolve(device, torch.float32)
    model = regressor(recipe).to(device)
    test = _pictures(recipe, 512, torch.Generator().manual_seed(99_991), device)
    before = _error(model, *test)
    taught(model)
    return Trained(recipe, model, _error(model, *test), before)


def _pictures(recipe: Recipe, count: int, generator: torch.Generator, device) -> tuple[Tensor, Tensor]:
    draw = torch.rand(count, 3, generator=generator)
    if recipe.task == "position":
        answers = 0.2 + 0.6 * draw[:, :2]
        pictures = paths.render_blobs(answers, 2 * torch.pi * draw[:, 2], size=recipe.size)
    else:
        answers = (2 * draw[:, :2] - 1) * torch.tensor([1.0, 0.7])
        pictures = paths.render_ellipsoids(answers, size=recipe.size)
    return pictures.to(device), answers.to(device)


def _error(model: nn.Module, pictures: Tensor, answers: Tensor) -> float:
    with torch.no_grad():
        missed = model(pictures) - answers
    return float((missed.square().mean() / (answers - answers.mean(0)).square().mean()).sqrt())


if __name__ == "__main__":
    np.savez_compressed(_FILE, **{
        json.dumps(vars(each)): nn.utils.parameters_to_vector(train(each).model.parameters()).detach().numpy()
        for each in STORED})
