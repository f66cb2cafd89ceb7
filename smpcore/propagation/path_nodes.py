"""A path's inputs and their slopes, checked; and the times at which a prediction takes them."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smpcore.arguments import with_tangent

__all__ = ["chosen_times", "inputs", "motion"]

# Inputs that are held at once while the whole path is looked over.
_NUMBERS = 1 << 22
# Nodes to begin with; by how much Σ|x'|²/|x| at the nodes may miss that at all times; and the most nodes.
NODES, _NEAR, _MOST = 33, 0.01, 16 * 33


def inputs(path, times: Tensor, name: str = "path") -> tuple[Tensor, Tensor]:
    """Values and slopes ``(P, *input_shape)`` in float64, by forward-mode differentiation.

    Raises
    ------
    TypeError
        For anything but a function.
    ValueError
        For a path that is no differentiable function of time, has the wrong number of inputs, or is not finite.
    """
    if not callable(path):
        raise TypeError(f"the {name} is a function of times t (P,) that gives inputs (P, *input_shape), not "
                        f"{type(path).__name__}")
    with forward_ad.dual_level():
        values, slopes = forward_ad.unpack_dual(with_tangent(path, times, name))
    if not 2 <= values.dim() <= 4:
        raise ValueError(f"the {name}'s inputs have shape {tuple(values.shape[1:])}: (features,), (C, L) or (C, H, W) "
                         "are known")
    for part, what in ((values, "values"), (slopes, "slopes")):
        bad = (~part.isfinite()).flatten(1).any(1).nonzero()
        if len(bad):
            raise ValueError(f"the {name}'s {what} are not finite at t = {float(times[bad[0, 0]]):g}")
    return values.detach().double(), slopes.detach().double()


def motion(path, times: Tensor) -> Tensor:
    """``(P,)`` |x'|²/|x| at all times, in parts: what a layer's kinks go with, for the price of the path alone."""
    found, start, size = [], 0, 2
    while start < len(times):
        values, slopes = (part.flatten(1) for part in inputs(path, times[start:start + size]))
        length = values.norm(dim=1)
        found.append((slopes**2).sum(1) / torch.where(length > 0, length, torch.inf))
        start, size = start + size, max(1, _NUMBERS // values.shape[1])
    return torch.cat(found)


def chosen_times(path, times: Tensor) -> Tensor:
    """Indices of the times that carry the moments: evenly chosen, and more where the path moves most.

    So many that the integral of |x'|²/|x| over them is that over all times to 1%.

    Raises
    ------
    ValueError
        For a path that moves by so fine jerks that 528 nodes miss them.
    """
    speed = motion(path, times)
    whole = torch.trapezoid(speed, times)
    passed = torch.cat([speed.new_zeros(1), torch.cumulative_trapezoid(speed, times)])
    count, most = min(len(times), NODES), min(len(times), _MOST)
    while True:
        even = torch.linspace(0, len(times) - 1, count).round().long().to(times.device)
        # As many again, at equal shares of what moves.
        shares = passed[-1] * torch.linspace(0, 1, count, dtype=passed.dtype, device=passed.device)
        moving = torch.searchsorted(passed, shares).clamp(max=len(times) - 1)
        for chosen in (even.unique(), torch.cat([even, moving]).unique()):
            off = torch.trapezoid(speed[chosen], times[chosen]) - whole
            if bool(off.abs() <= _NEAR * whole):
                return chosen
        if count >= most:
            raise ValueError(f"the path moves too unevenly: at {len(chosen)} of its {len(times)} times its motion "
                             f"|x'|²/|x| adds up to {float(off / whole):+.0%} of that at all of them; predict it in "
                             "shorter stretches")
        count = min(2 * count, most)
