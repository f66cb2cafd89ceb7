"""The networks that the shipped classifier has learned from: which recipes, in which order."""

from smpcore.training import Recipe

__all__ = ["recipes"]


def recipes(seeds: int = 3) -> list[Recipe]:
    """Every activation with every halving, on both tasks, of three widths, and the sharp cases: 34 a seed."""
    found = []
    for seed in range(seeds):
        plain = [(activation, pooling, task) for task in ("position", "angles")
                 for activation in ("relu", "leaky relu", "tanh", "gelu", "softplus")
                 for pooling in ("max", "average", "stride")]
        sharp = [(activation, pooling, "position") for activation in ("softplus 20", "softplus 50")
                 for pooling in ("average", "stride")]
        found += [Recipe(*which, channels=(4, 6, 8)[(place + seed) % 3], steps=700,
                         seed=1000 * seed + place)
                  for place, which in enumerate(plain + sharp)]
    return found
