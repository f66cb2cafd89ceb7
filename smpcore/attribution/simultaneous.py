"""Switches that happen together, and what each adds to the output's SMP.

Where units of several calls switch at one moment, the output's slope jumps once, by the sum of their changes with
their signs. Units that feed one another add up to that jump only if the inputs' slopes of all are taken on one side
of the moment and the gains of all on the other: with f = f_2 ∘ f_1 and slopes D before and D⁺ after,
D_2⁺D_1⁺ − D_2 D_1 = D_2⁺(D_1⁺ − D_1) + (D_2⁺ − D_2)D_1, and so on for more.
"""

import torch
from torch import Tensor

from smpcore.attribution.switch_events import Events

__all__ = ["joined", "shares"]


def joined(interval: Tensor, ahead: Tensor, behind: Tensor, tolerance: float) -> Tensor:
    """Numbers ``(E,)`` of the groups that switch on one difference: foretold alike from either end.

    Parameters
    ----------
    interval
        ``(E,)`` the sample before each switch.
    ahead, behind
        ``(E,)`` as in `Events`, but in units of the interval.
    tolerance
        Times closer than this are one.
    """
    labels = [_alike(interval, time, tolerance) for time in (ahead, behind)]
    group = torch.arange(len(interval), device=interval.device)
    # The smallest number among all that are connected: each round passes it on along both.
    while True:
        before = group
        for label in labels:
            group = group.new_full(group.shape, len(group)).scatter_reduce(0, label, group, "amin")[label]
        if torch.equal(group, before):
            return group


def _alike(interval: Tensor, time: Tensor, tolerance: float) -> Tensor:
    """Numbers ``(E,)``, the same for times of one interval that are closer than the tolerance."""
    inside = time.double() / (1 + time.double().abs())
    # A difference at rest foretells nothing, and is like no other.
    alone = -1.0 - torch.arange(len(time), device=time.device)
    moment = torch.where(time.isfinite(), interval + 0.5 + 0.5 * inside, alone)
    moment, order = moment.sort()
    label = torch.zeros_like(order)
    label[1:] = (moment.diff() > tolerance).cumsum(0)
    return torch.empty_like(label).index_copy_(0, order, label)


def shares(events: Events, layer: Tensor, gains: tuple[Tensor, Tensor], group: Tensor) -> tuple[Tensor, Tensor]:
    """What each switch adds to the output's SMP, those that happen together counted as one.

    Parameters
    ----------
    events
        In order of execution.
    layer
        ``(E,)`` numbers of the calls that they belong to.
    gains
        Two ``(E, m)``: from each unit to each output, at the interval's start and at its end.
    group
        ``(E,)`` as `joined` gives it.

    Returns
    -------
    share
        ``(E, m)``: the joint magnitude, shared out in proportion to each one's own.
    change
        ``(E, m)``: each one's own, with its sign.
    """
    change = _alone(events, gains)
    several = _spread(layer, group) > 0
    if bool(several.any()):
        change = torch.where(several[:, None], _together(events, gains, group), change)
    own = change.abs()
    joint = torch.zeros_like(change).index_add_(0, group, change).abs()[group]
    apart = torch.zeros_like(change).index_add_(0, group, own)[group]
    return torch.where(apart > 0, joint / apart, 0.0) * own, change


def _alone(events: Events, gains) -> Tensor:
    """Change of the outputs' slopes ``(E, m)`` at switches that feed no other that switches with them."""
    start, end = gains
    sided = torch.where((events.side == 0)[:, None], events.early[:, None] * end, events.late[:, None] * start)
    # Interpolated: either end alone is off by the curvature of the path, always upwards where pairs are close.
    middle = events.early + events.fraction * (events.late - events.early)
    middle = torch.where(events.tie, 0.0, middle)
    return torch.where((events.side >= 0)[:, None], sided, middle[:, None] * (start + end) / 2)


def _together(events: Events, gains, group: Tensor) -> Tensor:
    """The same where several calls switch together: all slopes at one end, all gains at the other.

    The end is that of the first unit that has one. Behind a unit that passes nothing on there, the gain is not
    defined (a pooling window of zeros chooses any), and nothing that switches with it can follow: its own end.
    Selections among themselves have no end, and take the mean of both, as near as the switch is to each.
    """
    start, end = gains
    size = len(group)
    order = torch.arange(size, device=group.device)
    sided = events.side >= 0
    first = _least(torch.where(sided, order, size), group)
    proper = _least(torch.where(events.tie, size, order), group)
    side = torch.where(first < size, events.side[first.clamp(max=size - 1)], -1)
    slopes = torch.where(side == 0, events.early, events.late)
    own = torch.where(events.dying, events.side, side)
    one = slopes[:, None] * torch.where((own == 0)[:, None], end, start)
    fraction = events.fraction[proper.clamp(max=size - 1)][:, None]
    both = (1 - fraction) * events.early[:, None] * end + fraction * events.late[:, None] * start
    change = torch.where((side >= 0)[:, None], one, both)
    return torch.where((proper < size)[:, None], change, 0.0)


def _least(value: Tensor, group: Tensor) -> Tensor:
    """The smallest of each group, ``(E,)``."""
    return torch.full_like(value, len(group)).scatter_reduce(0, group, value, "amin")[group]


def _spread(value: Tensor, group: Tensor) -> Tensor:
    most = torch.zeros_like(value).scatter_reduce(0, group, value, "amax")[group]
    return most - _least(value, group)
