"""Networks and paths whose jerk has a cause that was put there: for `smpcore.diagnosis`."""

import math

import torch
from torch import nn

from smpcore import models, paths

RATE = 30.0
TIMES = torch.arange(0, 2 * math.pi, 1 / RATE, dtype=torch.float64)
SHAPE = (1, 16, 16)


class Decoded(nn.Module):
    """A heatmap whose largest place is the answer."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x):
        heat = (10 * x + self.features(x)).flatten(1)
        place = heat.argmax(1)
        return torch.stack([place % 16, place // 16], 1).to(x) / 16


class Noisy(nn.Module):
    """A network whose features are noisy."""

    def __init__(self, model, deviation):
        super().__init__()
        self.model, self.deviation = model, deviation

    def forward(self, x):
        return self.model(x + self.deviation * torch.randn_like(x))


def network(seed, kinked=False):
    activation, pooling = ("relu", "max") if kinked else (("tanh", "gelu", "silu")[seed % 3], "average")
    return models.cnn(SHAPE, 2, channels=(4, 8), hidden=(16,), activation=activation, pooling=pooling, seed=seed)


def blob(seed):
    generator = torch.Generator().manual_seed(seed)
    reach = 0.15 + 0.15 * torch.rand(2, generator=generator, dtype=torch.float64)
    return paths.blob(size=16, reach=tuple(reach.tolist()))


def jittered(seed, deviation=0.01):
    """The blob of `blob` seen through a crop that is off by a random part of its size in each frame."""
    path, generator = blob(seed), torch.Generator().manual_seed(seed)
    off = deviation * torch.randn(len(TIMES), 2, generator=generator, dtype=torch.float64)
    return paths.through(paths.render_blobs(path.position(TIMES) + off, path.angle(TIMES), size=16), TIMES)


#: By the cause that was planted: from a seed to a model and a path.
PLANTED = {
    "decoding": lambda seed: (Decoded(seed).eval(), blob(seed)),
    "input": lambda seed: (network(seed, kinked=seed % 2 == 1), jittered(seed)),
    "not repeatable": lambda seed: (Noisy(network(seed, kinked=seed % 2 == 1), 0.02).eval(), blob(seed)),
    "kinks": lambda seed: (network(seed, kinked=True), blob(seed)),
    "motion": lambda seed: (network(seed), blob(seed)),
}
