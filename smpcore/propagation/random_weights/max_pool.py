"""The stage of a max pooling: its own kinks from the field before it, what is behind it from draws."""

import math
from itertools import pairwise, product

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.gaussian_max import LARGEST
from smpcore.propagation.closed_forms.orthant import orthant
from smpcore.propagation.random_weights.elementwise import slopes_of
from smpcore.propagation.random_weights.linear import TWO_SLOPE, Stage, stage
from smpcore.propagation.random_weights.sampling import REPLICATES, drawn
from smpcore.propagation.random_weights.second_moments import Field, diagonal

__all__ = ["check_size", "pool_rates", "shared_pairs", "windows"]

# Pairs that several windows compare, of all that they do, above which a pooling is refused.
_SHARED = 0.2


@stage("max pool")
def _max_pool(step, fields, run) -> Stage:
    """Swaps of the lead and, with a two-slope unit before or behind it, the leader's crossings of 0.

    Each window counts by itself. Where windows overlap, a pair that decides two of them at once is thereby counted with
    the sum of both gains' magnitudes in place of that of their sum: up to a tenth too much, for windows of 3 that move
    by 2 and share a sixth of their pairs. Where they share more than a fifth they are refused.

    max and a rising two-slope unit may trade places, so either order has the same kinks: swaps above 0 with slope
    1, below 0 with slope q, and the unit's own where the leader passes 0.
    """
    field = fields[0]
    if not field.sides or field.flat or not field.pairs:
        raise ValueError(f"{step.name} needs a map with sides, and gets features")
    where, sides = windows(step.settings, field.sides)
    where = where.to(field.value.device)
    check_size(step, where)
    _check_overlap(step, where)
    before = step.inputs[0] if run.steps[step.inputs[0]].op in TWO_SLOPE else None
    behind = run.two_slope_behind()
    source = field.before if before is not None else field if field.gaussian else None
    alone = before is None or len(run.users[before]) == 1
    if source is None or not alone or (before is not None and behind is not None):
        raise ValueError(f"{step.name} has to stand behind a linear or convolutional layer, with at most a batch norm "
                         "and one two-slope unit in between, whose output nothing else reads")
    unit = before if before is not None else behind
    above, below, zero = pool_rates(source, where)
    at = run.at if behind is None else behind
    if unit is None:
        rates = ((run.at, at, above + below),)
    else:
        mean_below, _, jump = slopes_of(run.steps[unit])
        if mean_below < 0:
            raise ValueError(f"{step.name} pools a unit that falls below 0 ({run.steps[unit].name}): no rule yet")
        rates = ((run.at, at, above + mean_below * below), (unit, at, jump * zero))
    values, slopes = field.draw()
    winner, pooled, rising = _pooled(values, slopes, where)
    result = drawn(field, pooled, rising, sides=sides)
    # A unit before the pooling passes the gain on where its winner is, which is above 0 more often than others.
    below_slope = 1.0 if before is None else slopes_of(run.steps[before])[0]
    passed = torch.where(pooled > 0, 1.0, below_slope).to(pooled)
    share, squared = (_shares(winner, weight, field.positions) for weight in (passed, passed**2))

    def pull(gain: Tensor) -> list[Tensor]:
        own = (squared * diagonal(gain)[..., None]).sum(-2)
        if gain.dim() == 3:
            return [own]
        across = share.mT @ gain @ share
        return [across - torch.diag_embed(torch.diagonal(across, dim1=-2, dim2=-1)) + torch.diag_embed(own)]

    return Stage(result, pull, rates)


def check_size(step, where: Tensor) -> None:
    """Refuse windows too large for the integrals."""
    if where.shape[1] > LARGEST:
        raise ValueError(f"{step.name} has windows of {where.shape[1]} signals: up to {LARGEST} have a rule")


def _check_overlap(step, where: Tensor) -> None:
    """Refuse windows that share so many pairs that each would count for several kinks."""
    shared = shared_pairs(where)
    if shared > _SHARED:
        raise ValueError(f"{step.name} has windows that share {shared:.0%} of their pairs: neighbours that decide "
                         f"several windows at once have no rule yet where they are more than {_SHARED:.0%}; take "
                         "larger steps or smaller windows")


def shared_pairs(where: Tensor) -> float:
    """Of all pairs that windows compare, the share that an earlier window compares as well."""
    first, second = torch.triu_indices(where.shape[1], where.shape[1], 1)
    pairs = torch.stack([where[:, first], where[:, second]], -1).flatten(0, 1)
    pairs = pairs[(pairs >= 0).all(-1)]
    return 1 - len(pairs.unique(dim=0)) / max(1, len(pairs))


def _pooled(values: Tensor, slopes: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The place, the value and the slope of each window's winner, ``(R, P, M, W)``."""
    inside = values[..., where.clamp(min=0)].masked_fill(where < 0, -torch.inf)
    pooled, member = inside.max(-1)
    winner = where.expand(*inside.shape).gather(-1, member[..., None])[..., 0]
    return winner, pooled, slopes.expand(values.shape).gather(-1, winner)


def _shares(winner: Tensor, weight: Tensor, positions: int) -> Tensor:
    """``(R, P, W, N)``: how often each position wins each window, weighted."""
    share = torch.zeros(*winner.shape[:2], winner.shape[3], positions, dtype=torch.float64, device=winner.device)
    return share.scatter_add_(3, winner.mT, weight.mT.contiguous()) / winner.shape[2]


# 1 − ρ² of two signals below which they count as one.
_SAME = 1e-10
# Sobol points in each of eight scrambles, from four signals upwards; and every how many of the times such an integral
# is done, with a straight line in between.
_POINTS, _EVERY = 32, 4


def windows(settings: dict, sides: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """``(W, k)``: the positions in each window, −1 beyond the border; and the sides behind."""
    count = len(sides)
    full = {name: _each(settings.get(name) if settings.get(name) is not None else default, count)
            for name, default in (("kernel_size", None), ("padding", 0), ("dilation", 1))}
    full["stride"] = _each(settings["stride"], count) if settings.get("stride") else full["kernel_size"]
    axes = []
    for axis, side in enumerate(sides):
        kernel, stride, padding, dilation = (full[name][axis] for name in
                                             ("kernel_size", "stride", "padding", "dilation"))
        room = side + 2 * padding - dilation * (kernel - 1) - 1
        outer = (-(-room // stride) if settings.get("ceil_mode") else room // stride) + 1
        # torch lets no window start beyond the picture's end.
        if settings.get("ceil_mode") and (outer - 1) * stride >= side + padding:
            outer -= 1
        if outer < 1:
            raise ValueError(f"a map of {sides} is smaller than the pooling window {full['kernel_size']}")
        axes.append([[at if 0 <= at < side else -1 for at in
                      (start * stride - padding + tap * dilation for tap in range(kernel))] for start in range(outer)])
    rows = []
    for chosen in product(*axes):
        members = []
        for place in product(*chosen):
            at = 0
            for part, side in zip(place, sides, strict=True):
                at = -1 if at < 0 or part < 0 else at * side + part
            members.append(at)
        rows.append(members)
    return torch.tensor(rows), tuple(len(axis) for axis in axes)


def _each(value, count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def pool_rates(field: Field, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ|jump of slope| per unit of t and window, by what happens there, ``(R, P, W)`` each.

    Two signals of a window swap the lead above 0; or below 0; or the leader itself passes 0. With d = x_i − x_j,

        swap(i, j) = Var(d' | d = 0) f_d(0) P(all others < x_i, x_i > 0 | d = 0)
        zero(i)    = E[x_i'² | x_i = 0] f_i(0) P(all others < 0 | x_i = 0)

    The probabilities are those of an orthant of a Gaussian of mean 0: closed up to three dimensions (windows of
    up to four signals), beyond that on Sobol points, of which each replicate has its own.

    Returns
    -------
    above, below, zero
        The three rates.
    """
    k = where.shape[1]
    present = where >= 0
    index = where.clamp(min=0).to(field.value.device)
    present = present.to(index.device)
    value, slope, cross = (moment[:, :, index[:, :, None], index[:, None, :]] for moment in field.moments())
    total = {"above": 0.0, "below": 0.0, "zero": 0.0}
    ties = [(first, second) for first in range(k) for second in [*range(first + 1, k), None]]
    for i, j in ties:
        rate, given, ignore = _event(value, slope, cross, present, i, j)
        if j is None:
            total["zero"] = total["zero"] + rate * _probability(given[..., 1:, 1:], ignore[:, 1:])
        else:
            either, upper = _probability(given[..., 1:, 1:], ignore[:, 1:]), _probability(given, ignore)
            total["above"] = total["above"] + rate * upper
            total["below"] = total["below"] + rate * (either - upper).clamp(min=0)
    return total["above"], total["below"], total["zero"]


def _event(value, slope, cross, present, i: int, j: int | None):
    """The rate of one tie, and the covariance given it of (−x_i, the others less x_i).

    For ``j`` None the tie is x_i = 0.
    """
    k = value.shape[-1]
    others = [each for each in range(k) if each not in (i, j)]
    weight = value.new_zeros(k)
    weight[i] = 1.0
    if j is not None:
        weight[j] = -1.0
    spread, rates = value @ weight @ weight, slope @ weight @ weight
    # Two signals that never differ make no swap.
    size = value[..., i, i] + (value[..., j, j] if j is not None else 0)
    both = present[:, i] & (present[:, j] if j is not None else True)
    live = (spread > _SAME * size) & both
    safe = torch.where(live, spread, 1.0)
    tied = cross @ weight @ weight
    rate = torch.where(live, (rates - tied**2 / safe).clamp(min=0) / (2 * math.pi * safe).sqrt(), 0.0)
    rows = [-torch.eye(k, dtype=value.dtype, device=value.device)[i]]
    rows += [torch.eye(k, dtype=value.dtype, device=value.device)[each] - (0 if j is None else 1) * -rows[0]
             for each in others]
    change = torch.stack(rows)
    across = value @ weight @ change.mT
    given = change @ value @ change.mT - across[..., :, None] * across[..., None, :] / safe[..., None, None]
    ignore = torch.cat([torch.zeros_like(present[:, :1]), ~present[:, others]], 1)
    return rate, given, ignore


def _probability(cov: Tensor, ignore: Tensor) -> Tensor:
    """P(every component < 0), mean 0, ``(R, P, W)``; components to ignore set no condition."""
    size = cov.shape[-1]
    if size == 0:
        return cov.new_ones(cov.shape[:-2])
    variance = torch.diagonal(cov, dim1=-2, dim2=-1)
    largest = variance.amax(-1, keepdim=True)
    ignore = ignore | (variance <= _SAME * largest)
    # A component to ignore becomes an independent one, below 0 half of the time.
    root = torch.where(ignore, 1.0, variance).clamp(min=1e-300).sqrt()
    correlation = cov / (root[..., :, None] * root[..., None, :])
    drop = ignore[..., :, None] | ignore[..., None, :]
    correlation = torch.where(drop, 0.0, correlation).clamp(-1, 1)
    twice = 2.0 ** ignore.sum(-1)
    if size <= 3:
        upper = torch.triu_indices(size, size, 1)
        angles = torch.asin(correlation[..., upper[0], upper[1]]).sum(-1)
        closed = {1: 0.5, 2: 0.25 + angles / (2 * math.pi), 3: 0.125 + angles / (4 * math.pi)}[size]
        return twice * closed
    correlation = correlation + torch.diag_embed(torch.where(ignore, 1.0, 0.0))
    times = correlation.shape[1]
    nodes = torch.linspace(0, times - 1, min(times, 1 - (1 - times) // _EVERY)).round().long().unique()
    some = correlation[:, nodes]
    flat = some.reshape(-1, size, size)
    found = orthant(flat.new_zeros(len(flat), size), flat, _POINTS)
    found = found.reshape(REPLICATES, -1, *some.shape[:-2]).mean(1)
    own = torch.arange(REPLICATES, device=found.device)
    return twice * _between(found[own, own if len(some) > 1 else 0 * own], nodes, times)


def _between(some: Tensor, nodes: Tensor, times: int) -> Tensor:
    """Linear in time between the nodes at which an integral was done."""
    if len(nodes) == times:
        return some
    result = some.new_empty(some.shape[0], times, *some.shape[2:])
    for n, (a, b) in enumerate(pairwise(nodes.tolist())):
        share = torch.linspace(0, 1, b - a + 1, dtype=some.dtype, device=some.device)[None, :, None]
        result[:, a:b + 1] = (1 - share) * some[:, n:n + 1] + share * some[:, n + 1:n + 2]
    return result
