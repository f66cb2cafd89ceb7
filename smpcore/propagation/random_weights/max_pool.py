"""The stage of a max pooling: its own kinks from the field before it, what is behind it from draws."""


import torch
from torch import Tensor, nn

from smpcore.propagation.closed_forms.gaussian_max import LARGEST, Ties, leads_at, ties, with_zero
from smpcore.propagation.closed_forms.unit_rule import TwoSlopes, two_slopes
from smpcore.propagation.random_weights.elementwise import through
from smpcore.propagation.random_weights.sampling import REPLICATES, as_many, drawn, windows_drawn
from smpcore.propagation.random_weights.second_moments import Field
from smpcore.propagation.random_weights.stage import Stage
from smpcore.units import windows

__all__ = ["check_size", "max_pool", "pool_rates", "shared_pairs"]

# Pairs that several windows compare, of all that they do, above which a pooling is refused.
_SHARED = 0.2


def max_pool(step, fields, run) -> Stage:
    """Swaps of the lead and, with a two-slope unit before or behind it, the leader's crossings of 0.

    Each window counts by itself. Where windows overlap, a pair that decides two of them at once is thereby counted with
    the sum of both gains' magnitudes in place of that of their sum: up to a tenth too much, for windows of 3 that move
    by 2 and share a sixth of their pairs. Where they share more than a fifth they are refused.

    max and a rising two-slope unit may trade places, so either order has the same kinks: swaps above 0 with slope
    1, below 0 with slope q, and the unit's own where the leader passes 0.
    """
    field = fields[0]
    if not field.sides or field.flat:
        raise ValueError(f"{step.name} needs a map with sides, and gets features")
    where, sides = windows(field.sides, **step.settings)
    where = where.to(field.value.device)
    check_size(step, where)
    _check_overlap(step, where)
    before = step.inputs[0] if run.two_slope(step.inputs[0]) else None
    behind = run.two_slope_behind()
    source = field.before if before is not None else field if field.gaussian else None
    alone = before is None or len(run.users[before]) == 1
    if source is None or not alone or (before is not None and behind is not None):
        raise ValueError(f"{step.name} has to stand behind a linear or convolutional layer, with at most a batch norm "
                         "and one two-slope unit in between, whose output nothing else reads")
    unit = before if before is not None else behind
    slopes_of = None if unit is None else two_slopes(run.steps[unit].seen)
    if slopes_of is not None and min(slopes_of[:2]) < 0:
        raise ValueError(f"{step.name} pools a unit that falls below 0 ({run.steps[unit].name}): no rule yet")
    swaps, crossings = _rates_of_some(source, where, slopes_of, run.next_seed() if len(where) > _SOME else 0)
    at = run.at if behind is None else behind
    rates = ((run.at, at, swaps), *([] if unit is None else [(unit, at, crossings)]))
    index, missing = where.clamp(min=0), where < 0
    if field.pairs or run.joint:
        values, slopes = (part[..., index] for part in field.draw())
    else:
        values, slopes = windows_drawn(source.within(where), run.next_seed())
        if before is not None:
            values, slopes, _ = through(run.steps[before], field.channels, values, slopes)
    pooled, member = values.masked_fill(missing, -torch.inf).max(-1)
    result = drawn(field, pooled, slopes.expand(values.shape).gather(-1, member[..., None])[..., 0], sides=sides)
    # A unit before the pooling passes the gain on where its winner is, which is above 0 more often than others.
    above, below = (1.0, 1.0) if before is None else slopes_of[:2]
    passed = torch.where(pooled > 0, above, below).to(pooled)
    # How often each member wins each window (R, P, W, k), weighted.
    squared = pooled.new_zeros(*values.shape[:2], *where.shape).scatter_add_(
        3, member.transpose(2, 3), (passed**2).transpose(2, 3).contiguous()) / values.shape[2]
    winner = index.expand(values.shape).gather(-1, member[..., None])[..., 0] if run.joint else None

    def pull(gain: Tensor) -> list[Tensor]:
        spread = squared * gain[..., None] if gain.dim() == 3 else as_many(gain, passed.shape[2]) * passed
        to = spread.new_zeros(*spread.shape[:2], *([] if gain.dim() == 3 else [spread.shape[2]]), field.positions)
        if gain.dim() == 3:
            return [to.index_add_(2, index.flatten(), spread.flatten(2))]
        return [to.scatter_add_(3, winner, spread)]

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


# Sobol points in each of eight scrambles, from four signals upwards, and every how many of the times such an integral
# is done, with a straight line in between; of more windows than so many some are drawn, with fewer points.
_POINTS, _EVERY, _SOME, _FEW = 32, 4, 128, 8


def _rates_of_some(field: Field, where: Tensor, slopes: TwoSlopes | None, seed: int) -> tuple[Tensor, ...]:
    """`pool_rates`, of a large map by windows drawn at random, which stand for all."""
    count = len(where)
    if count <= _SOME:
        return pool_rates(field, where, slopes, _POINTS)
    some = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_SOME].to(where.device)
    found = pool_rates(field, where[some], slopes, _FEW)
    return tuple(part.new_zeros(*part.shape[:3], count).index_copy_(3, some, part * (count / _SOME)) for part in found)


def pool_rates(field: Field, where: Tensor, slopes: TwoSlopes | None, points: int) -> tuple[Tensor, Tensor]:
    """Σ|jump of slope| and number of kinks per unit of t and window, ``(2, R, P, W)``: of swaps of the lead, and where
    the leader passes 0.

    With a two-slope unit, swaps above 0 count with its derivative there, those below 0 with the other; zero takes part
    as one more signal. The probabilities are those of an orthant of a Gaussian of mean 0: closed up to three
    dimensions, beyond that on Sobol points, of which each replicate has its own.
    """
    moments = field.within(where)
    mean, present = moments[0].new_zeros(moments[0].shape[:-1]), where >= 0
    made = None
    if slopes is None or slopes.below:
        value, slope, cross = moments
        found = ties(value, slope, mean, present, cross)
        made = _kinks(found, points).sum(-1)
        if slopes is None:
            return made, 0 * made
    mean, value, slope, cross = with_zero(mean, *moments)
    found = ties(value, slope, mean, nn.functional.pad(present, (0, 1), value=True), cross)
    each = _kinks(found, points)
    zero = found.second == where.shape[1]
    above, crossings = each[..., ~zero].sum(-1), each[..., zero].sum(-1)
    above_0, below_0, step = (above.new_tensor([part, part != 0]).view(2, 1, 1, 1) for part in (
        slopes.above, slopes.below, slopes.step))
    swaps = above_0 * above
    if made is not None:
        swaps = swaps + below_0 * (made - above).clamp(min=0)
    return swaps, step * crossings


def _kinks(found: Ties, points: int) -> Tensor:
    """``(2, R, P, W, pairs)``: Σ|jump of slope| and number of the ties of two that lead."""
    return torch.stack([found.strength, found.number]) * _probability(found, points)


def _probability(found: Ties, points: int) -> Tensor:
    """P(the two lead | tie), ``(R, P, W, pairs)``; at some times only where it is an integral."""
    replicates, times, size = *found.mean.shape[:2], found.mean.shape[-1]
    if size <= 3:
        return leads_at(found, 0)[0]
    nodes = torch.linspace(0, times - 1, min(times, 1 - (1 - times) // _EVERY)).round().long().unique()
    some = found._replace(mean=found.mean[:, nodes], cov=found.cov[:, nodes])
    each = leads_at(some, points)
    each = each.reshape(REPLICATES, -1, *each.shape[1:]).mean(1)
    own = torch.arange(REPLICATES, device=each.device)
    each = each[own, own if replicates > 1 else 0 * own]
    if len(nodes) == 1:
        return each
    # Linear in time between the nodes.
    at = torch.arange(times)
    upper = torch.searchsorted(nodes, at).clamp(min=1)
    share = ((at - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])).to(each)[:, None, None]
    return torch.lerp(each[:, upper - 1], each[:, upper], share)
