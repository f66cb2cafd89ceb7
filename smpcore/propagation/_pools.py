"""The stage of a max pooling: its own kinks from the field before it, what is behind it from draws."""

import torch
from torch import Tensor

from smpcore.propagation._draws import drawn
from smpcore.propagation._fields import diagonal
from smpcore.propagation._max_pooling import pool_rates, windows
from smpcore.propagation._stages import TWO_SLOPE, Stage, stage
from smpcore.propagation._units import slopes_of
from smpcore.propagation._windows import LARGEST

__all__ = ["check_size", "shared_pairs"]

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
