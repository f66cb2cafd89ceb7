"""SMP from values and slopes alone: what every measurement inside a model is compared with.

It knows nothing of units, patterns or layers. Intervals are halved as long as their two ends do not agree with
one smooth piece; what is left of the slope's change on the shortest is a kink.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["brute_smp", "values_and_slopes"]


def values_and_slopes(model, path, times: Tensor) -> tuple[Tensor, Tensor]:
    """``(P, m)`` each, through plain forward-mode AD."""
    found = []
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        for part in times.split(256):
            z = model(path(forward_ad.make_dual(part, torch.ones_like(part)))).flatten(1)
            value, slope = forward_ad.unpack_dual(z)
            found.append((value, torch.zeros_like(value) if slope is None else slope))
    return torch.cat([value for value, _ in found]), torch.cat([slope for _, slope in found])


def brute_smp(model, path, duration: float, *, samples: int = 501, straight: bool = True, depth: int = 24):
    """SMP of each output over [0, duration], and how many kinks there are.

    Parameters
    ----------
    samples
        Of the grid that it starts from.
    straight
        Whether the signal is piecewise linear; otherwise the smooth change of the slope is bounded by eight
        times its median, and a kink smaller than that on the first grid may be missed.
    depth
        How often an interval is halved.
    """
    left = torch.linspace(0, duration, samples, dtype=torch.float64)
    width = duration / (samples - 1)
    z, s = values_and_slopes(model, path, left)
    rough = 8 * float((s.diff(dim=0).abs().amax(1) / width).median()) if not straight else 0.0
    scale = float(s.abs().max())
    ends = [left[:-1], z[:-1], s[:-1], z[1:], s[1:]]
    total = torch.zeros(z.shape[1], dtype=torch.float64)
    for level in range(depth + 1):
        t, z0, s0, z1, s1 = ends
        turn = (s1 - s0).abs().amax(1)
        miss = (z1 - z0 - width * (s0 + s1) / 2).abs().amax(1)
        rounding = 1e-13 * float(z.abs().max() + 1)
        bent = turn > rough * width + 1e-9 * scale
        keep = bent | (miss > rough * width**2 / 4 + 1e-9 * scale * width + rounding)
        t, z0, s0, z1, s1 = (part[keep] for part in ends)
        if level == depth or len(t) == 0:
            return total + (s1 - s0).abs().sum(0), len(t)
        width /= 2
        zm, sm = values_and_slopes(model, path, t + width)
        ends = [torch.cat(pair) for pair in ((t, t + width), (z0, zm), (s0, sm), (zm, z1), (sm, s1))]
