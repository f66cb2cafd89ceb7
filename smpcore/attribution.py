"""SMP layer by layer: which units of a model make its output jerk, from a few hundred samples of a path.

Where a unit switches, its slope jumps, and the output's slope by that times the *gain* from the unit to the
output. So SMP = Σ over units and switches of |jump of the unit's own slope| · |gain|. Slopes come from one
forward pass with a tangent, gains from one backward pass for each output. A switch is seen as a changed sign or
a changed winner between neighbouring samples, so kinks need not be resolved (our derivation, from the abstract
of R. Liu, C.-W. Wong, H. Dai, arXiv:2103.14731).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from smpcore import device as devices
from smpcore import switches
from smpcore._events import (
    Events,
    Layout,
    find_layout,
    hinge_events,
    selection_events,
    shares,
    step_events,
)
from smpcore._model_checks import checked_copy, checked_times, choose_outputs, explained, home_of
from smpcore._watch import Scope, Watch, mark_of

__all__ = ["Attribution", "LayerSmp", "attribute"]

# Numbers kept for one chunk: about 32 MB of float64, at which a CPU's caches still help.
_NUMBERS = {"cpu": 4_000_000, "cuda": 100_000_000}
_LARGEST = {"cpu": 32, "cuda": 4096}
# Samples of one path, computed in other batches, agree to this.
_SAME = {torch.float64: 1e-8, torch.float32: 1e-3}
# Switches closer than this fraction of an interval are one: they come from the same difference.
_TOGETHER = {torch.float64: 1e-9, torch.float32: 1e-5}
_PATIENCE = 4.0


@dataclass(frozen=True)
class LayerSmp:
    """What one call adds.

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
    """

    name: str
    kind: str
    units: int
    switches: int
    smp: Tensor


@dataclass(frozen=True)
class Attribution:
    """SMP of each output along a path, layer by layer.

    Attributes
    ----------
    times
        ``(P,)``.
    values, slopes
        ``(P, m)`` the outputs and their slopes along the path.
    total
        ``(m,)`` SMP, the sum over the layers.
    value_jumps
        ``(m,)`` sum of magnitudes of jumps in value (rounding, hard shrinkage), to first order in the jump; where
        it is not 0, the slope has no SMP to speak of there.
    layers
        In order of execution, one for each call that can switch, also with 0 switches.
    """

    times: Tensor
    values: Tensor
    slopes: Tensor
    total: Tensor
    value_jumps: Tensor
    layers: list[LayerSmp]

    def to_frame(self):
        """Long format: a pandas frame with columns layer, kind, units, switches, output, smp."""
        import pandas as pd

        rows = [(layer.name, layer.kind, layer.units, layer.switches, output, smp)
                for layer in self.layers for output, smp in enumerate(layer.smp.tolist())]
        return pd.DataFrame(rows, columns=["layer", "kind", "units", "switches", "output", "smp"])

    def plot(self, output: int = 0, ax=None):
        """Bars of SMP by layer, in order of execution; gives back the matplotlib axes.

        Parameters
        ----------
        output
            Which output.
        ax
            Where to draw; a new figure where None.
        """
        import matplotlib.pyplot as plt

        from smpcore.plotting import COLORS, PALETTE

        if ax is None:
            _, ax = plt.subplots(figsize=(9.0, 1.2 + 0.4 * max(len(self.layers), 2)))
        values = [float(layer.smp[output]) for layer in self.layers]
        kinds = list(dict.fromkeys(layer.kind for layer in self.layers))
        colour = {kind: COLORS.get(kind, PALETTE[(3 + n) % len(PALETTE)]) for n, kind in enumerate(kinds)}
        for kind in kinds:
            rows = [n for n, layer in enumerate(self.layers) if layer.kind == kind]
            ax.barh(rows, [values[n] for n in rows], color=colour[kind], label=kind)
        for n, value in enumerate(values):
            ax.annotate(f" {value:.3g}", (value, n), va="center", fontsize=11)
        ax.set_yticks(range(len(self.layers)), [layer.name for layer in self.layers])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_xlabel("SMP [output units per unit of t]")
        ax.set_title(f"total {float(self.total[output]):.4g}")
        if len(kinds) > 1:
            ax.legend()
        return ax


def attribute(model, path: Callable[[Tensor], Tensor], times: Tensor, *,
              outputs: Sequence[int] | Callable | None = None, chunk: int | str = "auto",
              dtype: torch.dtype = torch.float64) -> Attribution:
    """SMP of a model's outputs along a path, layer by layer.

    Parameters
    ----------
    model
        Any `torch.nn.Module` in evaluation mode (or a function of a tensor), on any device. The measurement runs
        on a copy in ``dtype``.
    path
        ``path(t: (P,) float64) -> (P, *input_shape)``, a differentiable torch function of time.
    times
        ``(P,)``, increasing. A few hundred are enough; a unit that switches twice between two of them is missed.
    outputs
        None for all (at most 64), indices into the output flattened to (P, m), or a callable from what the model
        returns to a tensor (P, m).
    chunk
        Samples at once, at least 2; memory grows with it, the result does not depend on it.
    dtype
        In which everything but the times is computed.

    Returns
    -------
    Attribution

    Raises
    ------
    ValueError, TypeError
        For times that do not increase; a path without tangent or with the wrong number of inputs; a model in
        training mode with batch norm or dropout, one that changes between calls, or that mixes the samples of a
        batch; output that is not finite; more than 64 outputs; an operation without forward-mode AD; an output
        that depends on a switch that is not followed (sort, topk, a mask times its input, …).

    Notes
    -----
    Units that switch on the same difference kink together: their jumps are added with their signs before the
    magnitude is taken, which is shared out over the layers in proportion to their own.
    """
    times = checked_times(times)
    if chunk != "auto" and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 2):
        raise ValueError(f"chunk = {chunk!r}: it must be 'auto' or a whole number of at least 2")
    model = checked_copy(model, dtype)
    run = _Run(model, path, times.to(home_of(model, times)), outputs, dtype)
    run.probe()
    size = run.chunk() if chunk == "auto" else chunk
    begin, bar = time.monotonic(), None
    parts = []
    for part in devices.chunks(run.work, len(times), size, overlap=1):
        run.add(part, parts[-1] if parts else None)
        done = part.stop
        spent = time.monotonic() - begin
        if bar is None and done < len(times) and spent * (len(times) - done) / done > _PATIENCE:
            bar = _progress(len(times))
        if bar is not None:
            bar.update(done - bar.n)
        parts.append(part)
    if bar is not None:
        bar.close()
    return run.result(times, parts)


@dataclass
class _Part:
    """One chunk's results; nothing in it grows with the model's size."""

    start: int
    stop: int
    values: Tensor
    slopes: Tensor
    layers: dict[str, "_Layer"] = field(default_factory=dict)


@dataclass
class _Layer:
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


class _Run:
    def __init__(self, model, path, times, outputs, dtype):
        self.model, self.path, self.times, self.outputs, self.dtype = model, path, times, outputs, dtype
        self.scope = Scope(model)
        self.layouts: dict[str, Layout | None] = {}
        self.numbers, self.apart = 0, False
        self.totals: dict[str, _Layer] = {}

    def forward(self, t: Tensor, observe) -> tuple[Tensor, Tensor]:
        """Outputs and slopes ``(samples, m)`` at times t; call within a dual level."""
        dual = forward_ad.make_dual(t, torch.ones_like(t))
        x = self.path(dual)
        if not isinstance(x, Tensor):
            raise TypeError(f"the path returns a {type(x).__name__}: it must return a torch tensor (P, *input_shape)")
        if x.ndim < 1 or x.shape[0] != len(t):
            raise ValueError(f"for {len(t)} times the path returns shape {tuple(x.shape)}: it must return one input "
                             "for each time, (P, *input_shape)")
        if not x.is_floating_point() or forward_ad.unpack_dual(x).tangent is None:
            raise ValueError("the path carries no tangent: compute its inputs from t by differentiable torch "
                             "operations, without numpy, float(t), .item() or .detach()")
        x = x.to(self.dtype)
        if x.device != home_of(self.model, x):
            x = x.to(home_of(self.model, x))
        watch = Watch(observe, self.scope, self.apart)
        with self.scope(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), explained(watch), watch:
            found = self.model(x)
        z = choose_outputs(found, self.outputs, len(t))
        if mark_of(z) is None and isinstance(found, Tensor) and mark_of(found):
            z._smp_unfollowed = mark_of(found)
        if mark_of(z):
            raise ValueError(mark_of(z))
        value, slope = forward_ad.unpack_dual(z)
        return value, torch.zeros_like(value) if slope is None else slope.detach()

    # Three samples, two of them the same: where the samples are, and whether the output is a function of t ---

    def probe(self) -> None:
        t = self.times[[0, 0, len(self.times) // 2]]
        tolerance = _SAME.get(self.dtype, 1e-2)

        def observe(layer, seen, edge, value, where):
            with torch.no_grad():
                rows = self._rows(seen, value)
                self.layouts[layer] = find_layout(rows.detach(), tolerance)
            self.numbers += value.numel() + sum(part.numel() for part in _inputs(seen))

        first, found = self._probe_once(t, observe)
        self.numbers = 0
        second, _ = self._probe_once(t, observe)
        scale = tolerance * (1 + float(first.abs().max()))
        if not bool(first.isfinite().all()):
            return
        if float((first - second).abs().max()) > scale or float((first[0] - first[1]).abs().max()) > scale:
            raise ValueError("the model's output changes between calls with the same input (random numbers, a "
                             "counter), or depends on the place in the batch: it is not a function of t; call "
                             "model.eval(), fix the random numbers, or reset its state in forward")
        for node in _custom(found):
            import warnings

            warnings.warn(f"the model runs a custom autograd function ({node}): what switches inside it is not "
                          "counted", stacklevel=4)

    def _probe_once(self, t, observe):
        with forward_ad.dual_level():
            value, _ = self.forward(t, observe)
            return value.detach(), value.grad_fn

    def chunk(self) -> int:
        kind = self.times.device.type
        per_sample = max(self.numbers // 3, 1)
        most = _LARGEST.get(kind, 64)
        return max(2, min(most, _NUMBERS.get(kind, 4_000_000) // per_sample) + 1)

    @staticmethod
    def _rows(seen, value):
        """A layer's values with the samples in some dimension but the last."""
        if isinstance(seen, switches.Selection):
            source = seen.source(*seen.inputs)
            return value.reshape(*source.shape[:-1], -1)
        return forward_ad.unpack_dual(seen.input).primal.detach()[..., None]

    # One chunk ----------------------------------------------------------------------------------------------

    def work(self, start: int, stop: int) -> _Part:
        try:
            return self._work(start, stop)
        except RuntimeError as error:
            if self.apart or "modified by an inplace operation" not in str(error):
                raise
        self.apart = True
        return self._work(start, stop)

    def _work(self, start: int, stop: int) -> _Part:
        samples = stop - start
        ends = (start == 0, samples - 2 if stop == len(self.times) else None)
        layers: dict[str, _Layer] = {}

        def observe(name, seen, edge, value, where):
            with torch.no_grad():
                layers[name] = self._observed(name, seen, edge, value, where, samples, ends)

        with forward_ad.dual_level():
            value, slope = self.forward(self.times[start:stop], observe)
        part = _Part(start, stop, value.detach(), slope, layers)
        bad = (~part.values.isfinite()).any(1).nonzero()
        if len(bad):
            n = start + int(bad[0])
            raise ValueError(f"the model's output is not finite at sample {n} (t = {float(self.times[n]):g}): look at "
                             "the path's input there")
        self._gains(value, layers)
        return part

    def _observed(self, name, seen, edge, value, where, samples, ends) -> _Layer:
        layout = self._layout(name, seen, value, samples)
        kinks, jumps = [], []
        if layout is None:
            return _Layer(seen.kind, value.numel(), [], [], edge, tuple(value.shape), Layout())
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
        return _Layer(seen.kind, value.numel() // samples, kinks, jumps, edge, shape, layout)

    def _layout(self, name, seen, value, samples):
        if name not in self.layouts:
            raise ValueError(f"{name} ran on some inputs and not on others: what the model computes depends on its "
                             "input, and such a switch is not followed; measure with smp from samples")
        layout = self.layouts[name]
        if layout is None:
            raise ValueError(f"{name} mixes the samples of a batch, or holds them in no dimension that could be found: "
                             "it must treat every input by itself, along one dimension")
        return layout

    def _gains(self, value: Tensor, layers: dict[str, _Layer]) -> None:
        """One backward pass for each output; then only each layer's sums are kept."""
        m = value.shape[1]
        for kind in ("events", "jumps"):
            active = [layer for layer in layers.values() if getattr(layer, kind)]
            changes: list[list[Tensor]] = [[] for _ in active]
            for k in range(m if active and value.requires_grad else 0):
                gains = torch.autograd.grad(value[:, k].sum(), [layer.edge for layer in active], retain_graph=True,
                                            allow_unused=True)
                for layer, gain, change in zip(active, gains, changes, strict=True):
                    change.append(_changes(layer, getattr(layer, kind), gain, len(value)))
                del gains
            if not active or not value.requires_grad:
                continue
            events = [event for layer in active for event in getattr(layer, kind)]
            moment = torch.cat([event.interval + event.fraction for event in events])
            share = shares(moment, torch.cat([torch.stack(change, 1) for change in changes]),
                           torch.cat([event.turned for event in events]), torch.cat([event.late for event in events]),
                           _TOGETHER.get(self.dtype, 1e-3))
            counts = [sum(len(event.unit) for event in getattr(layer, kind)) for layer in active]
            for layer, own, count in zip(active, share.split(counts), counts, strict=True):
                if kind == "events":
                    layer.smp = own.sum(0)
                else:
                    layer.value_jumps = own.sum(0)
                layer.switches += count
        for layer in layers.values():
            if not value.requires_grad:
                layer.switches = sum(len(event.unit) for event in layer.events + layer.jumps)
            # The graph and its buffers go with the chunk.
            layer.edge, layer.events, layer.jumps = None, [], []

    # All of them --------------------------------------------------------------------------------------------

    def add(self, part: _Part, before: _Part | None) -> None:
        if before is not None:
            again, once = part.values[0], before.values[-1]
            if float((again - once).abs().max()) > _SAME.get(self.dtype, 1e-2) * (1 + float(once.abs().max())):
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

    def result(self, times: Tensor, parts: list[_Part]) -> Attribution:
        values = torch.cat([part.values[bool(n):] for n, part in enumerate(parts)])
        slopes = torch.cat([part.slopes[bool(n):] for n, part in enumerate(parts)])
        zero = values.new_zeros(values.shape[1])
        layers = [LayerSmp(name, layer.kind, layer.units, layer.switches, zero + layer.smp)
                  for name, layer in self.totals.items()]
        jumps = sum((layer.value_jumps for layer in self.totals.values()), zero)
        return Attribution(times, values, slopes, sum((layer.smp for layer in layers), zero), jumps, layers)


def _changes(layer: _Layer, events: list[Events], gain: Tensor | None, samples: int) -> Tensor:
    """Change of the output's slope (or value) at each event."""
    if gain is None:
        return torch.cat([torch.zeros_like(event.jump) for event in events])
    rows = layer.layout.rows(gain.reshape(layer.shape), samples).flatten(1)
    found = []
    for event in events:
        early, late = event.sides
        found.append(event.jump * (rows[early, event.unit] + rows[late, event.unit]) / 2)
    return torch.cat(found)


def _inputs(seen):
    return seen.inputs if isinstance(seen, switches.Selection) else (seen.input,)


def _opened(dual: Tensor) -> tuple[Tensor, Tensor]:
    x, slope = forward_ad.unpack_dual(dual)
    return x.detach(), torch.zeros_like(x) if slope is None else slope.detach()


def _custom(node) -> list[str]:
    """Names of the custom autograd functions in a graph."""
    found, seen, stack = {}, set(), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found[type(node).__name__.removesuffix("Backward")] = True
        stack.extend(parent for parent, _ in node.next_functions)
    return list(found)


def _progress(count: int):
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=count, desc="attribute", unit="sample", leave=False)
