"""Switches that happen together, and what each adds to the output's SMP.

Where several units switch at one moment, the output's slope jumps once, by the sum of their changes with their signs.
Units that feed one another add up to that jump only if the inputs' slopes of all are taken on one side of the moment
and the gains of all on the other: with f = f_2 ∘ f_1 and slopes D before and D⁺ after,
D_2⁺D_1⁺ − D_2 D_1 = D_2⁺(D_1⁺ − D_1) + (D_2⁺ − D_2)D_1 = D_2(D_1⁺ − D_1) + (D_2⁺ − D_2)D_1⁺, and so on for more.

Either choice is one reading of the jump. They agree where nothing else switches or bends in the interval; the mean of
their magnitudes is what counts, and half their difference says how far it may be off.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.attribution.switch_events import Events

__all__ = ["TOGETHER", "Moments", "joined", "jump_shares", "kink_shares", "moments_of"]

#: Moments of an interval that are kept, at most.
_KEPT = 4
#: Switches closer than this fraction of an interval are one: they come from the same difference.
TOGETHER = {torch.float64: 1e-7, torch.float32: 1e-5}


class Moments(NamedTuple):
    """When units switch within each of n intervals.

    Attributes
    ----------
    count
        ``(n,)`` how many moments there are; where one is on a sample, in which two intervals have a part, -1 (its
        start), -2 (its end) or -3 (both).
    silent
        ``(n,)`` at how many no output heeds what switches, at either end of the interval.
    at
        ``(n, 4)`` as parts of the interval, four of them in order, evenly chosen.
    """

    count: Tensor
    silent: Tensor
    at: Tensor

    @classmethod
    def none(cls, intervals: int, like: Tensor) -> "Moments":
        """Of intervals in which nothing switches."""
        count = torch.zeros(intervals, dtype=torch.int32, device=like.device)
        return cls(count, count.clone(), torch.full((intervals, _KEPT), 0.5, device=like.device))


def moments_of(events: Events, group: Tensor, heeded: Tensor, intervals: int) -> Moments:
    """When units switch.

    Parameters
    ----------
    events
        All that switch.
    group
        ``(E,)`` as `joined` gives it.
    heeded
        ``(E, m)`` whether an output depends on the unit, at either end of its interval.
    """
    first = (group == torch.arange(len(group), device=group.device)).nonzero()[:, 0]
    interval, part = events.interval[first], events.fraction[first]
    order = (interval + part.double()).argsort()
    heeded = _summed(heeded.any(1).float(), group)[first] > 0
    count, silent = (torch.bincount(each, minlength=intervals).int() for each in (interval, interval[~heeded]))
    rank = (count[:, None] * (torch.arange(_KEPT, device=count.device) + 0.5) / _KEPT).long()
    index = (count.cumsum(0) - count)[:, None] + rank
    on = sum(torch.zeros_like(count).index_fill(0, events.interval[time == 0], number)
             for number, time in ((1, events.ahead), (2, events.behind)))
    return Moments(torch.where(on > 0, -on, count), silent * (on == 0), part[order][index.clamp(max=len(part) - 1)])


def joined(interval: Tensor, ahead: Tensor, behind: Tensor, tolerance: float) -> Tensor:
    """Numbers ``(E,)`` of the groups that switch on one difference: foretold alike from either end.

    Parameters
    ----------
    interval
        ``(E,)`` the sample before each switch.
    ahead, behind
        ``(E,)`` as in `Events`.
    tolerance
        Times closer than this part of an interval are one.
    """
    places = [interval + 0.5 + 0.5 * time.double() / (1 + time.double().abs()) for time in (ahead, behind)]
    # On a sample itself: torch's derivatives there are neither side's, and both intervals beside it have a part.
    places.append(torch.where(ahead == 0, interval, torch.where(behind == 0, interval + 1, torch.nan)).double())
    labels = [_alike(place, tolerance) for place in places]
    group = torch.arange(len(interval), device=interval.device)
    # The smallest number among all that are connected: each round passes it on along both.
    while True:
        before = group
        for label in labels:
            group = group.new_full(group.shape, len(group)).scatter_reduce(0, label, group, "amin")[label]
        if torch.equal(group, before):
            return group


def _alike(place: Tensor, tolerance: float) -> Tensor:
    """Numbers ``(E,)``, the same for places on the path that are closer than the tolerance."""
    # A difference at rest foretells nothing, and is like no other.
    place = torch.where(place.isfinite(), place, -1.0 - torch.arange(len(place), device=place.device))
    place, order = place.sort()
    label = torch.zeros_like(order)
    label[1:] = (place.diff() > tolerance).cumsum(0)
    return torch.empty_like(label).index_copy_(0, order, label)


def kink_shares(events: Events, start: Tensor, end: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What kinks add to the outputs' SMP, those that happen together counted as one.

    Parameters
    ----------
    events
        In order of execution.
    start, end
        ``(E, m)``: gains from each unit to each output, at the interval's start and at its end.
    group
        ``(E,)`` as `joined` gives it.

    Returns
    -------
    smp
        ``(E, m)``: the joint magnitude of those that happen together, shared out in proportion to each one's own.
    change
        ``(E, m)``: each one's own change of the slope, with its sign; over an interval they add up to the output's.
    doubt
        ``(E, m)``: half the difference of the two readings of each group, in the row of its first switch.
    """
    early, late = events.early[:, None] * end, events.late[:, None] * start
    own = torch.where(events.caused[:, None], 0.0, torch.maximum(early.abs(), late.abs()))
    one, other, whole = (_summed(part, group) for part in (early, late, own))
    joint = (one.abs() + other.abs()) / 2
    share = torch.where(whole > 0, joint / whole, torch.where(whole == 0, 0.0, torch.nan))[group] * own
    return share, (early + late) / 2, (one - other) / 2


def jump_shares(events: Events, start: Tensor, end: Tensor, group: Tensor, jump: Tensor, slack: Tensor, rest: Tensor):
    """What jumps in value add: to the outputs' jumps, and to their SMP where a unit jumps and the output does not.

    Each jump of an output counts once: units behind a threshold whose own thresholds are passed at the same moment
    belong to it. An interval in which that happens, or in which the readings (step times gain) miss the output's jump,
    has that jump; else every group has its reading. Where a step is multiplied by what is 0 there, as in
    ``x * heaviside(x)``, the value does not jump and the slope does: what no kink accounts for is theirs.

    Parameters
    ----------
    events
        In order of execution.
    start, end
        ``(E, m)``: gains from each unit to each output, at the interval's start and at its end.
    group
        ``(E,)`` as `joined` gives it.
    jump
        ``(n, m)``: each interval's change of value less the integral of the slope.
    slack
        ``(n, m)``: how far a continuous output could move apart from that integral.
    rest
        ``(n, m)``: the change of slope that no kink accounts for.

    Returns
    -------
    value_jumps, smp
        ``(E, m)`` each: the shares in both.
    jumping
        ``(n, m)`` whether a jump reaches the output.
    """
    step = events.early.abs()[:, None]
    reading = torch.where(start * end > 0, events.early[:, None] * (start + end) / 2, 0.0)

    def each(part):
        return torch.zeros_like(jump).index_add_(0, events.interval, part.to(jump).expand(-1, jump.shape[1]))

    first = ~events.caused[:, None]
    first = first | (each(first) == 0)[events.interval]
    stated = each(reading)
    off = (jump - stated).abs() > slack
    total = torch.where(each(~first) > 0, stated.abs(), each(_summed(reading, group).abs()))
    total = torch.where(off, torch.where(jump.abs() > slack, jump.abs(), 0.0), total)
    weight = torch.where(first, reading.abs() + 1e-9 * step, 0.0)
    value_jumps = weight / each(weight)[events.interval] * total[events.interval]
    weight = torch.where(first & ((start != 0) | (end != 0)), step, 0.0)
    whole = each(weight)
    smp = torch.where((whole > 0) & (total == 0), rest.abs() / whole, 0.0)[events.interval] * weight
    return value_jumps, smp, (whole > 0) | (total > 0)


def _summed(part: Tensor, group: Tensor) -> Tensor:
    """The sums ``(E, m)`` of groups, each in the row of its number."""
    return torch.zeros_like(part).index_add_(0, group, part)
