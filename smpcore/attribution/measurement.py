"""One measurement layer by layer: chunks of a path through a watched model, and the gains back from its outputs."""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smpcore.arguments import device as devices
from smpcore.attribution.simultaneous import TOGETHER, Moments, joined, jump_shares, kink_shares, moments_of
from smpcore.attribution.switch_events import (
    Events,
    Layout,
    hinge_events,
    joined_events,
    selected,
    selection_events,
    step_events,
)
from smpcore.attribution.watched_model import WatchedModel
from smpcore.inspection.refusals import refusal
from smpcore.units import Hinges, Selection

__all__ = ["LayerSmp", "Measurement", "Part", "added", "chunk_size"]

# Numbers kept for one chunk: on a CPU about what its caches hold, but no fewer samples than fill its vector units as
# long as they fit the memory meant for them (64 MB of float64).
_NUMBERS = {"cpu": 2_500_000, "cuda": 100_000_000}
_FEWEST, _MOST_NUMBERS = 64, 8_000_000
_LARGEST = 4096


@dataclass(frozen=True)
class Observed:
    """One call that can switch, in one chunk."""

    kind: str
    units: int
    kinks: Events | None
    jumps: Events | None
    edge: object
    shape: tuple
    layout: Layout


@dataclass(frozen=True)
class LayerSmp:
    """What one call adds, over a chunk or over all.

    Attributes
    ----------
    name
        ``module.path:operation``, with ``#2``, ``#3`` for later calls of the same.
    kind
        In words: ``"relu"``, ``"max pool"``, …
    units
        How many units it has for one input.
    switches
        How often they switched between two samples, whether or not the output notices.
    smp
        ``(m,)`` its part of each output's SMP, in output units per unit of t.
    value_jumps
        ``(m,)`` its part of each output's jumps in value, in output units.
    """

    name: str
    kind: str
    units: int
    switches: int
    smp: Tensor
    value_jumps: Tensor | float = 0.0

    def plus(self, other: "LayerSmp") -> "LayerSmp":
        return replace(self, switches=self.switches + other.switches, smp=self.smp + other.smp,
                       value_jumps=self.value_jumps + other.value_jumps)


def added(layers: dict[str, LayerSmp], others: dict[str, LayerSmp]) -> dict[str, LayerSmp]:
    """The sums of both by name, in order of execution."""
    return layers | {name: layers[name].plus(layer) if name in layers else layer for name, layer in others.items()}


@dataclass(frozen=True)
class Part:
    """One chunk's results; nothing in it grows with the model's size.

    Attributes
    ----------
    values, slopes
        ``(samples, m)``.
    layers
        By name, in order of execution.
    rest
        ``(samples - 1, m)``: the change of slope that no switch accounts for.
    doubt
        ``(samples - 1, m)``: how far the kinks read may be off, as gains differ between an interval's ends.
    read
        ``(samples - 1, m)``: the SMP of the kinks.
    moments
        When units switch within each interval.
    """

    values: Tensor
    slopes: Tensor
    layers: dict[str, LayerSmp]
    rest: Tensor
    doubt: Tensor
    read: Tensor
    moments: Moments

    def followed_by(self, other: "Part") -> "Part":
        """Both as one; the first sample of the other is the last of this one."""
        def both(name, first=0):
            return torch.cat([getattr(self, name), getattr(other, name)[first:]])

        return Part(both("values", 1), both("slopes", 1), added(self.layers, other.layers), both("rest"), both("doubt"),
                    both("read"), Moments(*map(torch.cat, zip(self.moments, other.moments, strict=True))))


class Measurement:
    """A watched model with what `preflight` found about it; `part` measures one chunk."""

    def __init__(self, watched: WatchedModel, layouts: dict[str, Layout | None]):
        self.watched, self.layouts = watched, layouts
        self.apart = False

    def part(self, times: Tensor, start: int = -1, stops: bool = False, weight: Tensor | None = None) -> Part:
        """One chunk's results.

        Parameters
        ----------
        times
            ``(samples,)``.
        start
            Which of the path's samples the first is: 0 where nothing lies before it, -1 where it is none.
        stops
            Whether nothing lies behind the last.
        weight
            ``(samples - 1,)``: by -1, 0 or 1 each interval's figures are multiplied in the sums over layers. Where it
            is 0 nothing is looked for, and the times need not increase.
        """
        try:
            return self._part(times, start, stops, weight)
        except RuntimeError as error:
            if self.apart or "modified by an inplace operation" not in str(error):
                raise
        self.apart = True
        return self._part(times, start, stops, weight)

    def in_chunks(self, times: Tensor, size: int, weight: Tensor | None = None) -> Part:
        """`part` of times from anywhere on the path, at most ``size`` at once."""
        return functools.reduce(Part.followed_by, devices.chunks(
            lambda start, stop: self.part(times[start:stop], weight=None if weight is None else weight[start:stop - 1]),
            len(times), size, overlap=1))

    def _part(self, times, start, stops, weight) -> Part:
        ends = start == 0, len(times) - 2 if stops else None
        width = times.diff()
        calls: dict[str, Observed] = {}

        def observe(name, seen, edge, value, where):
            with torch.no_grad():
                calls[name] = self._observed(name, seen, edge, value, where, width, ends, weight)

        with forward_ad.dual_level():
            value, slopes = self.watched.forward(times, observe, apart=self.apart)
        for part, kind in ((value, "infinite"), (slopes, "steep")):
            bad = (~part.isfinite()).any(1).nonzero()
            if len(bad):
                raise refusal(kind, n=max(start, 0) + int(bad[0]), t=float(times[int(bad[0])]))
        return self._shared_out(value, slopes, calls, width.to(slopes)[:, None], weight)

    def _observed(self, name, seen, edge, value, where, width, ends, weight) -> Observed:
        samples = len(width) + 1
        layout = self._layout(name)
        kinks, jumps = None, None
        if isinstance(seen, Selection):
            pairs = [_opened(part) for part in seen.inputs]
            source = seen.source(*(x for x, _ in pairs)).detach()
            rise = seen.source(*(slope for _, slope in pairs))
            where = where.reshape(*source.shape[:-1], -1)
            kinks = selection_events(seen, layout, source, rise, where, width, ends)
            shape = tuple(where.shape)
        else:
            x, rise = _opened(seen.input)
            shape = (*x.shape, 1)
            if isinstance(seen, Hinges):
                kinks, jumps = hinge_events(seen, layout, x, rise, width, ends)
            else:
                jumps = step_events(seen, layout, x, rise, width)
        if weight is not None:
            kinks, jumps = (each and joined_events([selected(each, weight[each.interval] != 0)])
                            for each in (kinks, jumps))
        return Observed(seen.kind, value.numel() // samples, kinks, jumps, edge, shape, layout)

    def _layout(self, name) -> Layout:
        if name not in self.layouts:
            raise refusal("sometimes", name)
        if self.layouts[name] is None:
            raise refusal("mixes", name)
        return self.layouts[name]

    def _shared_out(self, value: Tensor, slopes: Tensor, calls: dict[str, Observed], width: Tensor, weight) -> Part:
        """One backward pass for each output; then only sums are kept, of each layer and of each interval."""
        values = value.detach()
        turn = slopes.diff(dim=0)
        rest, bent, doubt, read = turn, *(torch.zeros_like(turn) for _ in range(3))
        moments = Moments.none(len(turn), turn)
        smp, jumps = ({name: values.new_zeros(values.shape[1]) for name in calls} for _ in range(2))
        gains = _gains(value, calls)
        if "kinks" in gains:
            names, counts, events, start, end = gains["kinks"]
            group = self._joined(events)
            found, change, off = kink_shares(events, start, end, group)
            moments = moments_of(events, group, (start != 0) | (end != 0), len(turn))
            read = read.index_add(0, events.interval, found)
            if weight is not None:
                found = weight.to(found)[events.interval, None] * found
            rest = turn.index_add(0, events.interval, -change)
            bent = bent.index_add(0, events.interval, change.abs())
            doubt = doubt.index_add(0, events.interval, off**2).sqrt()
            for name, share in zip(names, found.split(counts), strict=True):
                smp[name] = smp[name] + share.sum(0)
        if "jumps" in gains:
            names, counts, events, start, end = gains["jumps"]
            least = 1e3 * torch.finfo(values.dtype).eps
            slack = width.abs() * (turn.abs() + bent) / 2 * (1 + 1e-6) + least * (values[1:].abs() + values[:-1].abs())
            jump = values.diff(dim=0) - width * (slopes[1:] + slopes[:-1]) / 2
            steep = least * (slopes[1:].abs() + slopes[:-1].abs())
            bends = torch.where(rest.abs() > steep, rest, 0.0)
            found, kinks, jumping = jump_shares(events, start, end, self._joined(events), jump, slack, bends)
            if weight is not None:
                found, kinks = (weight.to(part)[events.interval, None] * part for part in (found, kinks))
            for name, share, kink in zip(names, found.split(counts), kinks.split(counts), strict=True):
                jumps[name], smp[name] = jumps[name] + share.sum(0), smp[name] + kink.sum(0)
            # Where the value jumps, the slope has no say.
            rest, doubt = (part.masked_fill(jumping, 0.0) for part in (rest, doubt))
        layers = {name: LayerSmp(name, call.kind, call.units, _switches(call, weight), smp[name], jumps[name])
                  for name, call in calls.items()}
        return Part(values, slopes, layers, rest, doubt, read, moments)

    def _joined(self, events: Events) -> Tensor:
        return joined(events.interval, events.ahead, events.behind, TOGETHER.get(self.watched.dtype, 1e-3))


def chunk_size(device: str, numbers: float) -> int:
    """Samples at once, for a model whose layers hold so many numbers for one."""
    numbers = max(round(numbers), 1)
    samples = _NUMBERS.get(device, _NUMBERS["cpu"]) // numbers
    samples = max(samples, min(_FEWEST, _MOST_NUMBERS // numbers))
    return max(2, min(_LARGEST, samples) + 1)


def _gains(value: Tensor, calls: dict[str, Observed]) -> dict:
    """Kinks and jumps of all calls that have any: names, counts, events, and gains ``(E, m)`` at start and end."""
    active = {name: call for name, call in calls.items() if call.kinks or call.jumps}
    if not active or not value.requires_grad:
        return {}
    read = []
    for k in range(value.shape[1]):
        found = torch.autograd.grad(value[:, k].sum(), [call.edge for call in active.values()],
                                    retain_graph=k + 1 < value.shape[1], allow_unused=True)
        read.append({(name, kind): _gains_at(call, getattr(call, kind), gain, len(value))
                     for (name, call), gain in zip(active.items(), found, strict=True)
                     for kind in ("kinks", "jumps") if getattr(call, kind)})
        del found
    result = {}
    for kind in ("kinks", "jumps"):
        names = [name for name, of in read[0] if of == kind]
        if names:
            events = [getattr(active[name], kind) for name in names]
            gains = (torch.stack([torch.cat([one[name, kind][side] for name in names]) for one in read], 1)
                     for side in (0, 1))
            result[kind] = (names, [len(event.unit) for event in events], joined_events(events), *gains)
    return result


def _gains_at(call: Observed, events: Events, gain: Tensor | None, samples: int) -> tuple[Tensor, Tensor]:
    """The gain ``(E,)`` of each switching unit, at the interval's start and at its end."""
    if gain is None:
        return (torch.zeros_like(events.early),) * 2
    rows = call.layout.rows(gain.reshape(call.shape), samples).flatten(1)
    return rows[events.interval, events.unit], rows[events.interval + 1, events.unit]


def _switches(call: Observed, weight: Tensor | None) -> int:
    """How many kinks and jumps of a call are its own, each as often as its interval weighs."""
    where = [call.kinks.interval[~call.kinks.caused]] if call.kinks else []
    where += [call.jumps.interval] if call.jumps else []
    return sum(len(each) if weight is None else int(weight[each].sum()) for each in where)


def _opened(dual: Tensor) -> tuple[Tensor, Tensor]:
    x, slope = forward_ad.unpack_dual(dual)
    return x.detach(), torch.zeros_like(x) if slope is None else slope.detach()
