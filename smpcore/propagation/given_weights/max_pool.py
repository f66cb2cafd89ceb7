"""The rule of max pooling: swaps of the lead, each a kink of every window that it decides."""

import torch
from torch import Tensor, nn

from smpcore.propagation.closed_forms.block_rules import max_pool_smp
from smpcore.propagation.closed_forms.gaussian_max import tie_rates
from smpcore.propagation.given_weights.elementwise import described, drawn
from smpcore.propagation.given_weights.kink_sources import Kinks, draws_for, fresh, matched
from smpcore.propagation.given_weights.statistics import Statistics
from smpcore.units import windows

__all__ = ["max_pool"]


def max_pool(layer, statistics: Statistics) -> Statistics:
    """Swaps of the lead in every window, old kinks of the winner (`block_rules.max_pool_smp`).

    Where windows overlap, one pair of signals swaps the lead in several of them at once: each pair is then a source
    of its own, with a gain to every window that it leads in. Which those are comes from draws of the window's other
    signals given the tie; each window's own SMP is the closed one.
    """
    name = type(layer).__name__
    statistics.require(name, "gaussian", "stationary")
    count = 1 if isinstance(layer, nn.MaxPool1d) else 2
    if len(statistics.shape) != count + 1:
        raise ValueError(f"{name} takes maps of {count} sides, and gets shape {statistics.shape}")
    channels, *sides = statistics.shape
    settings = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")}
    where, outer = windows(sides, **settings)
    each = torch.Size(sides).numel()
    index = torch.cat([torch.where(where < 0, -1, where + channel * each) for channel in range(channels)])
    index = index.to(statistics.mean.device)
    rows = [row[row >= 0] for row in index]
    smp = statistics.smp
    new, passed = (torch.stack([max_pool_smp(statistics.value_cov[row][:, row], statistics.slope_cov[row][:, row],
                                             duration, statistics.mean[row], old[row]) for row in rows])
                   for duration, old in ((statistics.duration, 0 * smp), (0.0, smp)))
    values, slopes = drawn(statistics)
    member = values[:, index.clamp(min=0)].masked_fill(index < 0, -torch.inf).argmax(-1, keepdim=True)
    winner = index.expand(len(values), *index.shape).gather(-1, member)[..., 0]
    old = matched(tuple(part.picked(winner) for part in statistics.kinks), passed)
    pairs = _pairs(rows)
    shared = sum(len(row) * (len(row) - 1) // 2 for row in rows) > len(pairs)
    made = matched((_swaps(statistics, rows, pairs, values),), new)[0] if shared else fresh(new)
    return described(statistics, old, (made,), values.gather(1, winner), slopes.gather(1, winner), (channels, *outer))


def _pairs(rows: list[Tensor]) -> dict[tuple[int, int], int]:
    """A number for each pair of signals that some window compares."""
    found: dict[tuple[int, int], int] = {}
    for row in rows:
        members = sorted(row.tolist())
        for at, i in enumerate(members):
            for j in members[at + 1:]:
                found.setdefault((i, j), len(found))
    return found


def _swaps(statistics: Statistics, rows: list[Tensor], pairs: dict, values: Tensor) -> Kinks:
    """Every pair as a source: its rate of ties, and in which windows it leads at one."""
    cov, mean, slope_cov = statistics.value_cov, statistics.mean, statistics.slope_cov
    i, j = torch.tensor(list(pairs), device=mean.device).T
    rate, _, variance = tie_rates(cov, slope_cov, mean, i, j)
    values = values[:draws_for(len(pairs), len(rows))]
    gain = values.new_zeros(len(values), len(pairs), len(rows))
    # A draw given the tie: the unconditioned one, less what it says about the difference.
    pull = (cov[i] - cov[j]) / variance[:, None]
    for at, row in enumerate(rows):
        members = row.tolist()
        inside = torch.tensor([number for (a, b), number in pairs.items() if a in members and b in members],
                              dtype=torch.long, device=mean.device)
        first, second = i[inside], j[inside]
        tied = values[:, None, row] - (values[:, first] - values[:, second])[..., None] * pull[inside][:, row]
        others = (row != first[:, None]) & (row != second[:, None])
        leader = values[:, first] - (values[:, first] - values[:, second]) * pull[inside, first]
        gain[:, inside, at] = (~others | (tied < leader[..., None])).all(-1).to(values)
    return Kinks(statistics.duration * rate, gain)
