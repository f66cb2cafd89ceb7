"""How far the SMP of a network scatters over draws of its weights: simulated, for no closed form is at hand.

Each weight of a drawn network is one of the model's own of that layer, picked at random (a bootstrap), with a random
sign: it has the second moment that the prediction reads, and the model's distribution whatever that is. Of each network
the switches between some of the path's times are counted, with the units' mean gains.
"""

import copy

import torch
from torch import Tensor, nn

from smpcore.propagation.closed_forms.spread import maximum_smp
from smpcore.propagation.layer_graph import Step
from smpcore.propagation.measured_moments import Recorder
from smpcore.units import windows

__all__ = ["DRAWS", "drawn_network", "relative_spread"]

#: Networks drawn, and the most times at which they run.
DRAWS, _TIMES = 128, 97


def drawn_network(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are drawn from the model's, layer by layer; weights and whatever shifts with random signs.

    Gains of a batch norm, its variances and a unit's own settings keep their signs.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = copy.deepcopy(model).requires_grad_(False)
    for name, part in [*drawn.named_parameters(), *drawn.named_buffers()]:
        if part.is_floating_point():
            picked = torch.randint(part.numel(), part.shape, generator=generator).to(part.device)
            signs = 2 * torch.randint(2, part.shape, generator=generator).to(part) - 1
            moved = part.flatten()[picked]
            part.copy_(moved * signs if part.dim() > 1 or name.endswith(("bias", "running_mean")) else moved)
    return drawn


def relative_spread(model: nn.Module, graph: list[Step], path, times: Tensor) -> Tensor:
    """``(m,)``: standard deviation over mean of SMP over drawn networks, itself known to about 1/√(2 DRAWS)."""
    switches = [step for step in graph if step.switches]
    some = times[torch.linspace(0, len(times) - 1, min(len(times), _TIMES)).round().long()]
    each = torch.stack([_counted(drawn_network(model, seed), switches, path, some) for seed in range(DRAWS)])
    return each.std(0) / each.mean(0).clamp(min=1e-300)


def _counted(model: nn.Module, switches: list[Step], path, times: Tensor) -> Tensor:
    """SMP ``(m,)``: every unit is a maximum, a hinge that of its input and the threshold."""
    parts = list(Recorder(model, {step.call for step in switches}, path).parts(times))
    total = 0.0
    for step in switches:
        values, slopes = (torch.cat([before[step.call][which] for _, before, _ in parts]) for which in (0, 1))
        size = torch.cat([gains[step.call].abs() for *_, gains in parts], 1).mean(1)
        if step.op == "max pool":
            where = windows(values.shape[2:], **step.settings)[0].to(values.device)
            rows = [part.flatten(2)[..., where.clamp(min=0)].movedim(0, -2) for part in (values, slopes)]
            beyond = torch.where(where < 0, 3 * rows[0].abs().max(), 0.0)[:, None]
            total = total + (size.flatten(2) * maximum_smp(rows[0] - beyond, rows[1])).sum((1, 2))
            continue
        for hinge in step.describe(values).hinges:
            above, moves = (torch.stack([part, torch.zeros_like(part)], -1).movedim(0, -2)
                            for part in (values - hinge.at, slopes))
            bend = torch.as_tensor(hinge.above - hinge.below).abs().to(size)
            total = total + (size * maximum_smp(above, moves) * bend).flatten(1).sum(1)
    return total
