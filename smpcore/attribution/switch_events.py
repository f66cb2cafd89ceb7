"""Switches between consecutive samples, and what they add up to at the output.

A switch is seen as a changed sign or a changed winner; it is neither located nor resolved from its neighbours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smpcore.units.table import Hinges, Selection, Steps

__all__ = ["Events", "Layout", "find_layout", "hinge_events", "joined_events", "selected",
           "selection_events", "step_events"]

# By kind, number and figures of a threshold, as `_on_threshold` found it.
_ON_THRESHOLD: dict[tuple, float | None] = {}


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
    """The layout of a tensor ``(..., last)``, computed from two samples and from three.

    Parameters
    ----------
    value, again
        From samples (a, b), and from (a, c, b).

    Returns
    -------
    Layout or None
        None where no dimension holds the samples. Of two that fit, the one along which the tensor differs.
    """
    grown = [dim for dim, sizes in enumerate(zip(value.shape, again.shape, strict=False)) if len(set(sizes)) > 1]
    if value.dim() != again.dim() or len(grown) != 1 or grown[0] == value.dim() - 1:
        return None
    dim = grown[0]
    size = value.shape[dim]
    if size % 2 or again.shape[dim] * 2 != size * 3:
        return None
    finite = value[value.isfinite()]
    scale = tolerance * float(finite.abs().max()) if finite.numel() else 0.0

    def same(one, other):
        return bool(((one == other) | ((one - other).abs() <= scale)).all())

    fits = []
    for inner in ((False, True) if size > 2 else (False,)):
        layout = Layout(dim, inner)
        few, more = layout.rows(value, 2), layout.rows(again, 3)
        if same(few[0], more[0]) and same(few[1], more[2]):
            fits.append((layout, not same(few[0], few[1]) or not same(more[0], more[1])))
    return next((layout for layout, moved in fits if moved), fits[0][0] if fits else None)


class Events(NamedTuple):
    """Switches of one call, E of them, each on a difference d that changes its sign.

    Attributes
    ----------
    interval
        ``(E,)`` the sample before the switch.
    fraction
        ``(E,)`` how far into the interval, interpolated.
    ahead, behind
        ``(E,)`` the switch's time after the interval's start, and before its end, in intervals, as d and its slope
        there alone foretell it. Either is the same to the last digits for all units that switch on multiples of one
        difference, which is how they are told.
    unit
        ``(E,)`` which of the call's units.
    early, late
        ``(E,)`` jump of the unit's own slope, or of its value, with its sign: with the inputs' slopes taken at the
        interval's start, and at its end.
    caused
        ``(E,)`` whether an earlier unit made this one switch: d is nothing but 0 on one side of a kink, or d jumps
        itself at a jump. It belongs to that unit's switch, and is not counted once more. True as well for what
        switches at the path's own end.
    """

    interval: Tensor
    fraction: Tensor
    ahead: Tensor
    behind: Tensor
    unit: Tensor
    early: Tensor
    late: Tensor
    caused: Tensor


def joined_events(events: list[Events]) -> Events | None:
    """Several as one, in order; None where there are none."""
    events = [event for event in events if len(event.unit)]
    return Events(*map(torch.cat, zip(*events, strict=True))) if events else None


def _crossing(before, after, rise_before, rise_after, interval, ends):
    """Which changes of sign are switches: strictly on both sides, or moving through 0 at a sample.

    ``ends`` says whether the first and the last sample are the path's own, where nothing lies beyond. All others are
    caused by an earlier unit's switch, or have no other side.
    """
    strict = (before != 0) & (after != 0) & ((before > 0) != (after > 0))
    way = torch.where(after > before, 1.0, -1.0).to(before)
    start = (before == 0) & (after != 0) & (rise_before * way > 0)
    stop = (after == 0) & (before != 0) & (rise_after * way > 0)
    first, last = ends
    start = start & (interval > 0) if first else start
    stop = stop & (interval < last) if last is not None else stop
    return strict | start | stop


def _on_threshold(seen: Hinges, number: int, value: Tensor) -> float | None:
    """Where between its derivatives below (0) and above (1) torch puts a unit's derivative at a threshold itself.

    None where the two are equal.
    """
    at, below, above, _ = seen.hinges[number]
    x, below, above = (torch.as_tensor(part, dtype=value.dtype, device=value.device).expand_as(value)
                       for part in (at, below, above))
    x, below, above = x.clone(), below.flatten()[0], above.flatten()[0]
    if below == above:
        return None
    with torch.enable_grad():
        # Backward, as gains are: behind a unit at rest it is all that counts, and prelu has another one forward.
        slope, = torch.autograd.grad(seen.output(x.requires_grad_()).sum(), x)
    return float((slope.flatten()[0] - below) / (above - below))


def hinge_events(seen: Hinges, layout: Layout, value: Tensor, slope: Tensor, width: Tensor, ends):
    """Kinks, and value jumps, of an elementwise unit.

    Parameters
    ----------
    value, slope
        Its input and the input's slope along the path, in the input's shape.
    width
        ``(samples - 1,)`` of the intervals.
    ends
        Whether sample 0 is the path's first; the last interval where the last sample is the path's last, else
        None.
    """
    kinks, jumps, samples = [], [], len(width) + 1
    x = layout.rows(value[..., None], samples).flatten(1)
    rise = layout.rows(slope[..., None], samples).flatten(1)
    for number, hinge in enumerate(seen.hinges):
        at, below, above, step = (_each(part, value, layout, samples) for part in hinge)
        key = seen.kind, number, *(part for part in hinge if not isinstance(part, Tensor))
        if key not in _ON_THRESHOLD:
            _ON_THRESHOLD[key] = _on_threshold(seen, number, value)
        on = _ON_THRESHOLD[key]
        d = x if isinstance(at, float) and at == 0.0 else x - at
        n, unit = _changed(d > 0 if on in (0, None) else d >= 0 if on == 1 else d.sign())
        before, after, r0, r1 = d[n, unit], d[n + 1, unit], rise[n, unit], rise[n + 1, unit]
        keep = _crossing(before, after, r0, r1, n, ends)
        below, above, step = (torch.as_tensor(part, dtype=x.dtype, device=x.device) for part in (below, above, step))
        below, above, step = (part[unit] if part.dim() else part.expand(len(n)) for part in (below, above, step))
        where = [torch.where(each == 0, on or 0.0, (each > 0).to(x)) for each in (before, after)]
        bend = (where[1] - where[0]) * (above - below)
        found = Events(n, before / (before - after), -before / r0 / width[n], after / r1 / width[n], unit,
                       bend * r0, bend * r1, ~keep)
        # Nothing of a unit that jumps in value is a kink: its SMP is infinite there.
        kinks.append(selected(found, (step == 0) & (above != below)))
        step = torch.where(after > before, step, -step)
        jumped = _jumped(before, after, r0, r1, width[n])
        jumps.append(selected(found._replace(early=step, late=step, caused=jumped), keep & (step != 0)))
    return joined_events(kinks), joined_events(jumps)


def step_events(seen: Steps, layout: Layout, value: Tensor, slope: Tensor, width: Tensor) -> Events | None:
    """Value jumps of a unit whose output is piecewise constant."""
    samples = len(width) + 1
    x, rise = (layout.rows(part[..., None], samples).flatten(1) for part in (value, slope))
    level = seen.level(x)
    n, unit = _changed(level)
    step = level[n + 1, unit] - level[n, unit]
    before, after = x[n, unit], x[n + 1, unit]
    # Where in the interval is not known; a number that only units with the same input share.
    same = (before.abs() * 1.618 + after.abs() * 2.718).frac()
    jumped = _jumped(before, after, rise[n, unit], rise[n + 1, unit], width[n])
    return joined_events([Events(n, same, same, same, unit, step, step, jumped)])


def _jumped(before, after, rise_before, rise_after, width):
    """Whether a unit's input moves by more than its slopes say: an earlier unit's value has jumped."""
    moved = after - before
    return (moved - width * (rise_before + rise_after) / 2).abs() > moved.abs() / 2


def selection_events(seen: Selection, layout: Layout, value: Tensor, slope: Tensor, where: Tensor, width: Tensor,
                     ends) -> Events | None:
    """Kinks of the largest (smallest) of several candidates.

    Parameters
    ----------
    value, slope
        ``(*rows, places)``: the candidates and their slopes.
    where
        ``(*rows, windows)``: each window's winner.
    """
    samples = len(width) + 1
    winner = layout.rows(where, samples)
    n, unit = _changed(winner.flatten(1))
    row, window = unit // winner.shape[2], unit % winner.shape[2]
    x, rise = layout.rows(value, samples), layout.rows(slope, samples)
    old, new = winner[n, row, window], winner[n + 1, row, window]
    before, after = x[n, row, new] - x[n, row, old], x[n + 1, row, new] - x[n + 1, row, old]
    r0, r1 = rise[n, row, new] - rise[n, row, old], rise[n + 1, row, new] - rise[n + 1, row, old]
    keep = _crossing(before, after, r0, r1, n, ends)
    return joined_events([Events(n, before / (before - after), -before / r0 / width[n], after / r1 / width[n], unit,
                                 r0, r1, ~keep)])


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


def selected(events: Events, keep: Tensor) -> Events:
    """Those of the events that ``keep`` ``(E,)`` marks or counts out."""
    return Events(*(part[keep] for part in events))
