"""The networks that the shipped classifier was fitted to, in their order, and the paths that they are sampled on."""

import torch

from smpcore.arguments import checked, whole
from smpcore.models.regressors import Recipe, Trained

__all__ = ["PATHS", "recipes", "watch"]

#: Paths on which every network is sampled: those of `Recipe.paths`.
PATHS = 4


@checked(seeds=whole(0))
def recipes(seeds: int = 3) -> list[Recipe]:
    """Every activation with every halving, on both tasks, of three widths, and the sharp cases: 40 a seed."""
    found = []
    for seed in range(seeds):
        halvings, tasks = ("max", "average", "stride"), ("position", "angles")
        plain = [(activation, pooling, task) for task in tasks
                 for activation in ("relu", "leaky relu", "tanh", "gelu", "softplus") for pooling in halvings]
        sharp = [(activation, pooling, "position") for activation in ("softplus 20", "softplus 50")
                 for pooling in ("average", "stride")]
        bent = [("elu", pooling, task) for task in tasks for pooling in halvings]
        found += [Recipe(*which, channels=(4, 6, 8)[(place + seed) % 3], steps=700,
                         seed=1000 * seed + place)
                  for place, which in enumerate(plain + sharp + bent)]
    return found


def watch(trained: Trained, samples: int) -> torch.Tensor:
    """(PATHS, samples): one output along each path, the two of a network in turns; float64 on the CPU."""
    return torch.stack([trained.curves(samples, path=path)[0][number % 2]
                        for number, path in enumerate(trained.recipe.paths())])
