"""Switches between consecutive samples, and what they add up to at the output.

A switch is seen as a changed sign or a changed winner; it is neither located nor resolved from its neighbours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.units.table import Hinges, Selection, Steps

__all__ = ["Events", "Layout", "find_layout", "hinge_events", "selection_events", "step_events"]


class Layout(NamedTuple):
    """Where the samples of a tensor are: along ``dim``, as its slowest index or (``inner``) its fastest."""

    dim: int = 0
    inner: bool = False

    def rows(self, tensor: Tensor, samples: int) -> Tensor:
        """``(samples, units, last dimension)`` of a tensor ``(..., last)``."""
        split = (-1, samples) if self.inner else (samples, -1)
        rows = tensor.unflatten(self.dim, split).movedim(self.dim + self.inner, 0)
        return rows.reshape(samples, -1, tensor.shape[-1])


def find_layout(value: Tensor, again: Tensor, tolerance: float) -> Layout | None:
    """The layout of a tensor ``(..., last)``, computed from three samples and from five.

    Parameters
    ----------
    value, again
        From samples (a, a, b), and from (a, a, c, c, b).

    Returns
    -------
    Layout or None
        None where no dimension holds the samples.
    """
    grown = [dim for dim, sizes in enumerate(zip(value.shape, again.shape, strict=False)) if len(set(sizes)) > 1]
    if value.dim() != again.dim() or len(grown) != 1 or grown[0] == value.dim() - 1:
        return None
    dim = grown[0]
    size = value.shape[dim]
    if size % 3 or again.shape[dim] * 3 != size * 5:
        return None
    finite = value[value.isfinite()]
    scale = tolerance * float(finite.abs().max()) if finite.numel() else 0.0

    def same(one, other):
        return bool(((one == other) | ((one - other).abs() <= scale)).all())

    fits = []
    for inner in ((False, True) if size > 3 else (False,)):
        layout = Layout(dim, inner)
        few, more = layout.rows(value, 3), layout.rows(again, 5)
        if same(few[0], few[1]) and same(more[0], more[1]) and same(more[2], more[3]) and same(few[2], more[4]):
            fits.append((not same(few[0], few[2]) or not same(more[0], more[2]), layout))
    return next((layout for moved, layout in fits if moved), fits[0][1] if fits else None)


class Events(NamedTuple):
    """Switches of one call, E of them, each on a difference d that changes its sign.

    Attributes
    ----------
    interval
        ``(E,)`` the sample before the switch.
    fraction
        ``(E,)`` how far into the interval, interpolated.
    ahead, behind
        ``(E,)`` the switch's time after the interval's start, and before its end, in units of t, as d and its slope
        there alone foretell it. Either is the same to the last digits for all units that switch on multiples of one
        difference, which is how they are told.
    unit
        ``(E,)`` which of the call's units.
    early, late
        ``(E,)`` jump of the unit's own slope, or of its value, with its sign: with the inputs' slopes taken at the
        interval's start, and at its end.
    side
        ``(E,)`` at which end the jump is to be taken, and the gain at the other: 0 the start, 1 the end, -1 both.
    dying
        ``(E,)`` whether the unit passes nothing on at that end: then its gain is always that of the other.
    tie
        ``(E,)`` whether d is nothing but 0 on one side: the switch is another unit's, seen once more.
    """

    interval: Tensor
    fraction: Tensor
    ahead: Tensor
    behind: Tensor
    unit: Tensor
    early: Tensor
    late: Tensor
    side: Tensor
    dying: Tensor
    tie: Tensor


def _crossing(before, after, rise_before, rise_after, interval, ends):
    """Which changes of sign of a difference are switches: strictly on both sides, or moving through 0 at a sample.

    ``ends`` says whether the first and the last sample are the path's own, where nothing lies beyond.
    """
    up = after > before
    strict = (before != 0) & (after != 0) & ((before > 0) != (after > 0))
    way = torch.where(up, 1.0, -1.0).to(before)
    start = (before == 0) & (after != 0) & (rise_before * way > 0)
    stop = (after == 0) & (before != 0) & (rise_after * way > 0)
    first, last = ends
    start = start & (interval > 0) if first else start
    stop = stop & (interval < last) if last is not None else stop
    return strict | start | stop


def hinge_events(seen: Hinges, layout: Layout, value: Tensor, slope: Tensor, samples: int, ends):
    """Kinks, and value jumps, of an elementwise unit.

    Parameters
    ----------
    value, slope
        Its input and the input's slope along the path, in the input's shape.
    samples
        How many samples there are in it.
    ends
        Whether sample 0 is the path's first; the last interval where the last sample is the path's last, else
        None.
    """
    kinks, jumps = [], []
    x = layout.rows(value[..., None], samples).flatten(1)
    rise = layout.rows(slope[..., None], samples).flatten(1)
    for hinge in seen.hinges:
        at, below, above, step = (_each(part, value, layout, samples) for part in hinge)
        d = x if isinstance(at, float) and at == 0.0 else x - at
        positive = d > 0
        n, unit = _changed(positive)
        before, after, r0, r1 = d[n, unit], d[n + 1, unit], rise[n, unit], rise[n + 1, unit]
        keep = _crossing(before, after, r0, r1, n, ends)
        n, unit, before, after, r0, r1 = (part[keep] for part in (n, unit, before, after, r0, r1))
        below, above, step = (part[unit] if isinstance(part, Tensor) and part.dim() else
                              torch.as_tensor(part).to(x).expand(len(n)) for part in (below, above, step))
        up = after > before
        way = torch.where(up, 1.0, -1.0).to(x)
        bend = way * (above - below)
        # The gain on the side that passes more on, the slope on the other: what switches together telescopes.
        side = (up != (above.abs() >= below.abs())).long()
        dying = (above == 0) | (below == 0)
        found = Events(n, before / (before - after), -before / r0, after / r1, unit, bend * r0, bend * r1, side, dying,
                       torch.zeros_like(dying))
        # Nothing of a unit that jumps in value is a kink: its SMP is infinite there.
        kink = step == 0
        kinks.append(_select(found, kink & (above != below)))
        jumps.append(_select(_both_sides(found, way * step), ~kink))
    return [*_some(kinks)], [*_some(jumps)]


def step_events(seen: Steps, layout: Layout, value: Tensor, samples: int):
    """Value jumps of a unit whose output is piecewise constant."""
    x = layout.rows(value[..., None], samples).flatten(1)
    level = seen.level(x)
    n, unit = _changed(level)
    step = level[n + 1, unit] - level[n, unit]
    # Where in the interval is not known; a number that only units with the same input share.
    same = (x[n, unit].abs() * 1.618 + x[n + 1, unit].abs() * 2.718).frac()
    return [*_some([_both_sides(Events(n, same, same, same, unit, *[step] * 5), step)])]


def selection_events(seen: Selection, layout: Layout, value: Tensor, slope: Tensor, where: Tensor, samples: int,
                     ends):
    """Kinks of the largest (smallest) of several candidates.

    Parameters
    ----------
    value, slope
        ``(*rows, places)``: the candidates and their slopes.
    where
        ``(*rows, windows)``: each window's winner.
    """
    winner = layout.rows(where, samples)
    n, unit = _changed(winner.flatten(1))
    row, window = unit // winner.shape[2], unit % winner.shape[2]
    x, rise = layout.rows(value, samples), layout.rows(slope, samples)
    old, new = winner[n, row, window], winner[n + 1, row, window]
    before, after = x[n, row, new] - x[n, row, old], x[n + 1, row, new] - x[n + 1, row, old]
    r0, r1 = rise[n, row, new] - rise[n, row, old], rise[n + 1, row, new] - rise[n + 1, row, old]
    right = seen.sign * (after - before) > 0
    keep = _crossing(before, after, r0, r1, n, ends)
    # Two that were one moving signal and part: a selection before this one has switched. (Two at rest, as behind
    # dead units, are the event of whatever moves one of them.)
    first = (before == 0) & (r0 == 0) & (after != 0) & (rise[n, row, old] != 0)
    second = (after == 0) & (r1 == 0) & (before != 0) & (rise[n + 1, row, new] != 0)
    tie = ~keep & (first | second)
    found = Events(n, before / (before - after), -before / r0, after / r1, unit, *_both(r0, r1), tie)
    return [*_some([_select(found, (keep | tie) & right)])]


def _both(early, late):
    side = torch.full(early.shape, -1, device=early.device)
    return early, late, side, torch.zeros_like(side, dtype=torch.bool)


def _both_sides(events: Events, step: Tensor) -> Events:
    """The same switches, with a jump in value, which depends on neither end's slopes."""
    early, late, side, dying = _both(step, step)
    return events._replace(early=early, late=late, side=side, dying=dying, tie=dying)


def _changed(state: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals and units ``(E,)`` each, in which a state ``(samples, units)`` changes."""
    # Flat, for torch's nonzero takes several times as long in two dimensions.
    place = _places((state[1:] != state[:-1]).flatten())
    return place // state.shape[1], place % state.shape[1]


def _places(found: Tensor) -> Tensor:
    """Where a flat mask is true, in order; few places are found eight at a time."""
    if found.device.type != "cpu" or len(found) < 4096:
        return found.nonzero()[:, 0]
    whole = len(found) // 8 * 8
    word = found[:whole].view(torch.int64).nonzero()[:, 0]
    inside = found[:whole].view(-1, 8)[word].nonzero()
    return torch.cat([word[inside[:, 0]] * 8 + inside[:, 1], whole + found[whole:].nonzero()[:, 0]])


def _each(part, like: Tensor, layout: Layout, samples: int):
    """A hinge's number, or one for each unit ``(units,)``."""
    if not isinstance(part, Tensor):
        return float(part)
    part = part.detach().to(like)
    if part.dim() == 0:
        return part
    return layout.rows(part.expand(like.shape)[..., None], samples)[0].flatten()


def _select(events: Events, keep: Tensor) -> Events:
    return Events(*(part[keep] for part in events))


def _some(events):
    return (part for part in events if len(part.unit))
