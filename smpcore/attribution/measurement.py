"""One measurement layer by layer: chunks of a path through a watched model, and the gains back from its outputs."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from smpcore.attribution.interpreter import Watch, mark_of
from smpcore.attribution.simultaneous import joined, shares
from smpcore.attribution.switch_events import Events, Layout, hinge_events, selection_events, step_events
from smpcore.inspection.checks import choose_outputs, explained, home_of
from smpcore.inspection.module_scope import Scope, eagerly
from smpcore.paths.lines import CirclePath, LinePath
from smpcore.units import table as switches

__all__ = ["SAME", "LayerTotals", "Measurement", "Part"]

# Numbers kept for one chunk: on a CPU about what its caches hold, but no fewer samples than fill its vector units as
# long as they fit the memory meant for them (64 MB of float64).
_NUMBERS = {"cpu": 2_500_000, "cuda": 100_000_000}
_FEWEST, _MOST_NUMBERS = 64, 8_000_000
_LARGEST = 4096
# Samples of one path, computed in other batches, agree to this.
SAME = {torch.float64: 1e-8, torch.float32: 1e-3}
# Switches closer than this fraction of an interval are one: they come from the same difference.
_TOGETHER = {torch.float64: 1e-9, torch.float32: 1e-5}


@dataclass
class Part:
    """One chunk's results; nothing in it grows with the model's size."""

    start: int
    stop: int
    values: Tensor
    slopes: Tensor
    layers: dict[str, "LayerTotals"] = field(default_factory=dict)
    #: Of each output, how far the rest (the change of slope that no switch accounts for) stands out of its neighbours'
    #: by more than gains read beside kinks explain, where it does most, and in which interval: ``(m,)`` each.
    worst: tuple[Tensor, Tensor] | None = None


@dataclass
class LayerTotals:
    kind: str
    units: int
    events: list[Events]
    jumps: list[Events]
    edge: object
    shape: tuple
    layout: Layout
    smp: Tensor | float = 0.0
    value_jumps: Tensor | float = 0.0
    switches: int = 0


class Measurement:
    """A model, a path and its times, with what was found on the way.

    After `probe` call `work` for every chunk, and `add` what it gives, in order.
    """

    def __init__(self, model, path, times, outputs, dtype):
        self.model, self.path, self.times, self.outputs, self.dtype = model, path, times, outputs, dtype
        self.scope = Scope(model)
        self.layouts: dict[str, Layout | None] = {}
        self.numbers, self.apart = 0, False
        self.totals: dict[str, LayerTotals] = {}

    def inputs(self, t: Tensor) -> Tensor:
        """The path's inputs at times t, where and as the model takes them."""
        return self._placed(self.path(t), t)

    def _moving(self, t: Tensor) -> Tensor:
        """The same with their slopes, which some paths know and others are asked for by forward-mode AD."""
        if isinstance(self.path, LinePath | CirclePath):
            return forward_ad.make_dual(self._placed(self.path(t), t), self._placed(self.path.slope(t), t))
        return self._placed(self.path(forward_ad.make_dual(t, torch.ones_like(t))), t)

    def _placed(self, x, t: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"the path returns a {type(x).__name__}: it must return a torch tensor (P, *input_shape)")
        if x.ndim < 1 or x.shape[0] != len(t):
            raise ValueError(f"for {len(t)} times the path returns shape {tuple(x.shape)}: it must return one input "
                             "for each time, (P, *input_shape)")
        x = x.to(self.dtype)
        home = home_of(self.model, x)
        return x if x.device == home else x.to(home)

    def forward(self, t: Tensor, observe, known: bool = False) -> tuple[Tensor, Tensor]:
        """Outputs and slopes ``(samples, m)`` at times t; call within a dual level."""
        x = self._moving(t)
        if forward_ad.unpack_dual(x).tangent is None:
            raise ValueError("the path carries no tangent: compute its inputs from t by differentiable torch "
                             "operations, without numpy, float(t), .item() or .detach()")
        if known:
            # Leads back to every custom autograd function; a copy, for the model may write into its input.
            x, slope = forward_ad.unpack_dual(x)
            x = forward_ad.make_dual(x.detach().requires_grad_().clone(), slope)
        watch = Watch(observe, self.scope, self.apart)
        with eagerly(), self.scope(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), explained(watch), watch:
            found = self.model(x)
        z = choose_outputs(found, self.outputs, len(t))
        if mark_of(z) is None and isinstance(found, Tensor) and mark_of(found):
            z._smp_unfollowed = mark_of(found)
        if mark_of(z):
            raise ValueError(mark_of(z))
        value, slope = forward_ad.unpack_dual(z)
        return value, torch.zeros_like(value) if slope is None else slope.detach()

    def chunk(self) -> int:
        kind = self.times.device.type
        per_sample = max(round(self.numbers), 1)
        samples = _NUMBERS.get(kind, _NUMBERS["cpu"]) // per_sample
        samples = max(samples, min(_FEWEST, _MOST_NUMBERS // per_sample))
        return max(2, min(_LARGEST, samples) + 1)

    @staticmethod
    def rows(seen, value):
        """A layer's values with the samples in some dimension but the last."""
        if isinstance(seen, switches.Selection):
            source = seen.source(*seen.inputs)
            return value.reshape(*source.shape[:-1], -1)
        return forward_ad.unpack_dual(seen.input).primal.detach()[..., None]

    # One chunk ----------------------------------------------------------------------------------------------

    def work(self, start: int, stop: int) -> Part:
        try:
            return self.part(start, stop)
        except RuntimeError as error:
            if self.apart or "modified by an inplace operation" not in str(error):
                raise
        self.apart = True
        return self.part(start, stop)

    def part(self, start: int, stop: int, whole: bool = True) -> Part:
        """One chunk's results; ``whole`` says that the first time and the last are the path's own ends."""
        samples = stop - start
        ends = (whole and start == 0, samples - 2 if whole and stop == len(self.times) else None)
        layers: dict[str, LayerTotals] = {}

        def observe(name, seen, edge, value, where):
            with torch.no_grad():
                layers[name] = self._observed(name, seen, edge, value, where, samples, ends)

        with forward_ad.dual_level():
            value, slope = self.forward(self.times[start:stop], observe)
        part = Part(start, stop, value.detach(), slope, layers)
        bad = (~part.values.isfinite()).any(1).nonzero()
        if len(bad):
            n = start + int(bad[0])
            raise ValueError(f"the model's output is not finite at sample {n} (t = {float(self.times[n]):g}): look at "
                             "the path's input there")
        bad = (~slope.isfinite()).any(1).nonzero()
        if len(bad):
            n = start + int(bad[0])
            raise ValueError(f"the output's slope is not finite at sample {n} (t = {float(self.times[n]):g}): some "
                             "operation is infinitely steep there, as a square root is at 0; add a small number "
                             "inside it")
        self._gains(value, part)
        return part

    def _observed(self, name, seen, edge, value, where, samples, ends) -> LayerTotals:
        layout = self._layout(name, seen, value, samples)
        kinks, jumps = [], []
        if isinstance(seen, switches.Selection):
            pairs = [_opened(part) for part in seen.inputs]
            source = seen.source(*(x for x, _ in pairs)).detach()
            rise = seen.source(*(slope for _, slope in pairs))
            shape = (*source.shape[:-1], -1)
            kinks = selection_events(seen, layout, source, rise, where.reshape(shape), samples, ends)
            shape = tuple(value.reshape(shape).shape)
        else:
            x, rise = _opened(seen.input)
            shape = (*x.shape, 1)
            if isinstance(seen, switches.Hinges):
                kinks, jumps = hinge_events(seen, layout, x, rise, samples, ends)
            else:
                jumps = step_events(seen, layout, x, samples)
        return LayerTotals(seen.kind, value.numel() // samples, kinks, jumps, edge, shape, layout)

    def _layout(self, name, seen, value, samples):
        if name not in self.layouts:
            raise ValueError(f"{name} ran on some inputs and not on others: what the model computes depends on its "
                             "input, and such a switch is not followed; measure with smp from samples")
        layout = self.layouts[name]
        if layout is None:
            raise ValueError(f"{name} mixes the samples of a batch, or holds them in no dimension that could be found: "
                             "it must treat every input by itself, along one dimension")
        return layout

    def _gains(self, value: Tensor, part: Part) -> None:
        """One backward pass for each output; then only sums are kept, of each layer and of each interval."""
        seen = {}
        for kind in ("events", "jumps"):
            active = [layer for layer in part.layers.values() if getattr(layer, kind)]
            if active and value.requires_grad:
                seen[kind] = self._shared_out(value, active, kind, part.start)
        width = self.times.diff()[part.start:part.stop - 1, None]
        rest, own = part.slopes.diff(dim=0), torch.zeros_like(part.slopes[1:])
        if "events" in seen:
            interval, change = seen["events"]
            rest = rest.index_add(0, interval, -change.to(rest))
            own = own.index_add(0, interval, change.abs().to(rest))
        apart = (rest - _beside(rest)).abs() - 0.5 * (own + _beside(own))
        if "jumps" in seen:
            # Where the value jumps, the slope has no say.
            interval, change = seen["jumps"]
            torn = torch.zeros_like(rest).index_add(0, interval, change.abs().to(rest))
            steep = torch.maximum(part.slopes[1:].abs(), part.slopes[:-1].abs())
            apart = torch.where(torn > 1.01 * width.to(rest) * steep, 0.0, apart)
        part.worst = apart.max(0)
        for layer in part.layers.values():
            layer.switches = sum(len(event.unit) for event in layer.events + layer.jumps)
            # The graph and its buffers go with the chunk.
            layer.edge, layer.events, layer.jumps = None, [], []

    def _shared_out(self, value: Tensor, active: list[LayerTotals], kind: str, start: int):
        found = [[Events(*map(torch.cat, zip(*getattr(layer, kind), strict=True)))] for layer in active]
        counts = [len(events.unit) for events, in found]
        gains: tuple[list, list] = [], []
        for k in range(value.shape[1]):
            backward = torch.autograd.grad(value[:, k].sum(), [layer.edge for layer in active], retain_graph=True,
                                           allow_unused=True)
            ends = [_gains_at(layer, events, gain, len(value))
                    for layer, (events,), gain in zip(active, found, backward, strict=True)]
            for side, parts in zip(gains, zip(*ends, strict=True), strict=True):
                side.append(torch.cat(parts))
            del backward, ends
        events = Events(*map(torch.cat, zip(*(events for events, in found), strict=True)))
        width = self.times.diff()[start + events.interval]
        group = joined(events.interval, events.ahead / width, events.behind / width, _TOGETHER.get(self.dtype, 1e-3))
        layer = torch.arange(len(active), device=group.device).repeat_interleave(
            torch.tensor(counts, device=group.device))
        share, change = shares(events, layer, tuple(torch.stack(side, 1) for side in gains), group)
        for layer, own in zip(active, share.split(counts), strict=True):
            setattr(layer, "smp" if kind == "events" else "value_jumps", own.sum(0))
        return events.interval, change

    # All of them --------------------------------------------------------------------------------------------

    def add(self, part: Part, before: Part | None) -> None:
        if before is not None:
            again, once = part.values[0], before.values[-1]
            if float((again - once).abs().max()) > SAME.get(self.dtype, 1e-2) * (1 + float(once.abs().max())):
                raise ValueError(f"the model's output at t = {float(self.times[part.start]):g} changes between calls "
                                 "(random numbers, a counter) or with the batch it is computed in: it is not a "
                                 "function of t; call model.eval(), fix the random numbers, or reset its state")
        for name, layer in part.layers.items():
            if name in self.totals:
                total = self.totals[name]
                total.smp, total.switches = total.smp + layer.smp, total.switches + layer.switches
                total.value_jumps = total.value_jumps + layer.value_jumps
            else:
                self.totals[name] = layer
        part.layers = {}


def _gains_at(layer: LayerTotals, events: Events, gain: Tensor | None, samples: int) -> tuple[Tensor, Tensor]:
    """The gain ``(E,)`` of each switching unit, at the interval's start and at its end."""
    if gain is None:
        return (torch.zeros_like(events.early),) * 2
    rows = layer.layout.rows(gain.reshape(layer.shape), samples).flatten(1)
    return rows[events.interval, events.unit], rows[events.interval + 1, events.unit]


def _beside(rest: Tensor) -> Tensor:
    """The mean of each interval's neighbours, ``(samples - 1, m)``."""
    if len(rest) == 1:
        return torch.zeros_like(rest)
    return torch.cat([rest[1:2], (rest[2:] + rest[:-2]) / 2, rest[-2:-1]])


def _opened(dual: Tensor) -> tuple[Tensor, Tensor]:
    x, slope = forward_ad.unpack_dual(dual)
    return x.detach(), torch.zeros_like(x) if slope is None else slope.detach()
