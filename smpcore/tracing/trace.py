"""Every kink of a piecewise-linear model on a straight line, with a certificate that none is missing.

The pieces of the line are carried through one ordinary forward pass (`smpcore.tracing.interpreter`), stretch by
stretch so that memory stays bounded. The result is then held against the plain model: at both ends of every stretch,
and at points drawn at random inside pieces, in value and in slope.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smpcore.arguments import TENSOR, Kind, check, checked_copy, choose_outputs, home_of, runs, whole
from smpcore.inspection.module_scope import Scope, eagerly
from smpcore.inspection.opaque_ops import hidden_switches
from smpcore.inspection.refusals import refusal, sentence
from smpcore.tracing.interpreter import Carrier
from smpcore.tracing.piecewise import Line, NothingLeft, Record, Rows, TooManyPieces

__all__ = ["LineTrace", "Tracer", "trace_line"]

# Numbers that one tensor may hold over all pieces of a stretch: about what stays in a processor's cache, which
# also measured fastest. On a GPU, where it is the calls that cost, more.
_ROOM = {"cpu": 1 << 20, "cuda": 1 << 24}
# Points at which the plain model is asked as well, beside all ends of stretches.
_CHECKS = 16
_LENGTH = Kind(Real, ": it must be a number, the line's length in units of t",
               lambda length: 0 < length <= torch.finfo(torch.float64).max,
               ": it must be positive and finite, the line's length in units of t")


@dataclass(frozen=True)
class LineTrace:
    """The kinks of a model's outputs on a line, in order.

    Attributes
    ----------
    times
        ``(K,)`` in [0, length].
    jumps
        ``(K, m)``: by how much the slope of each of the m outputs jumps, in output units per unit of t.
    layers
        K names, ``module.path:op`` with ``#2``, ``#3`` for later calls: the unit that switches at each kink.
    smp
        ``(m,)``: Σ|jumps|, by output.
    certified
        Whether it is proved that no kink is missing. Otherwise `gaps` says where not and why.
    gaps
        ``(t0, t1, reason)`` of every stretch in which some operation is not straight between two kinks, or in
        which the plain model gave something else than the trace. Kinks inside a gap are not counted. The reasons
        stand in `smpcore.inspection.refusals`.
    probes
        Points of the line evaluated: the pieces carried, and the plain model's points.
    knots
        ``(n + 1,)``: where the n pieces begin and end: 0, every kink, the ends of gaps, and the line's length.
    values
        ``(n + 1, m)``: the outputs at the knots.
    slopes
        ``(n, m)``: the outputs' slopes on the pieces, in output units per unit of t; NaN on a piece that is a gap.
    """

    times: Tensor
    jumps: Tensor
    layers: list[str]
    smp: Tensor
    certified: bool
    gaps: list[tuple[float, float, str]]
    probes: int
    knots: Tensor
    values: Tensor
    slopes: Tensor

    def curve(self, t: Tensor) -> Tensor:
        """The outputs at times ``t (P,)`` of the line, exact between its gaps: ``(P, m)``.

        Raises
        ------
        TypeError, ValueError
            For what is no floating tensor (P,), a time outside [0, length], and one in a gap, where nothing is known.
        """
        check({"t": t}, {"t": TENSOR})
        t = t.to(self.knots)
        if t.dim() != 1 or bool((t < 0).any() | (t > self.knots[-1]).any() | t.isnan().any()):
            raise ValueError(f"t of shape {tuple(t.shape)}: it must be (P,) times between 0 and the line's length, "
                             f"{float(self.knots[-1]):g}")
        piece = (torch.searchsorted(self.knots, t, right=True) - 1).clamp(0, len(self.slopes) - 1)
        unknown = self.slopes[piece].isnan().any(1) & (t != self.knots[piece])
        if bool(unknown.any()):
            self.refuse_gaps(f"the curve at t = {float(t[unknown][0]):g} is not known")
        since = (t - self.knots[piece])[:, None].to(self.slopes.dtype)
        return self.values[piece] + torch.where(since > 0, self.slopes[piece] * since, 0.0)

    def midpoint_error(self, steps: int) -> Tensor:
        """By how much ``steps`` midpoints miss an output's difference between the line's ends at most: ``(m,)``.

        Integrated gradients (M. Sundararajan, A. Taly, Q. Yan, ICML 2017) take the mean of the gradient at points of
        the line in place of its integral, and their sum misses the output's difference. The slope's total variation
        is SMP, and n midpoints have the star discrepancy 1/(2n), so the error is at most SMP · length/(2n)
        (J. F. Koksma, 1942). So SMP · length/(2ε) steps are enough for an error of ε.

        Raises
        ------
        TypeError, ValueError
            For steps that are no whole number from 1 up, and a trace that is not certified.
        """
        check({"steps": steps}, {"steps": whole()})
        self.refuse_gaps("no number of steps is known to be enough")
        return self.smp * float(self.knots[-1]) / (2 * steps)

    def refuse_gaps(self, what: str) -> None:
        """A ValueError that says what cannot be had, where the trace is not certified."""
        if not self.certified:
            left, right, reason = self.gaps[0]
            raise ValueError(f"{what}: the line is not certified between t = {left:g} and {right:g} ({reason})")

    def __repr__(self) -> str:
        state = "certified" if self.certified else f"not certified, {len(self.gaps)} gaps"
        return f"LineTrace({len(self.times)} kinks, smp {[round(v, 6) for v in self.smp.tolist()]}, {state})"


def trace_line(model: Callable, start: Tensor, end: Tensor, *, length: float = 1.0,
               outputs: Sequence[int] | Callable | None = None,
               dtype: torch.dtype = torch.float64) -> LineTrace:
    """Every kink of ``model`` on the line from ``start`` to ``end``, each with its layer and its jump.

    Parameters
    ----------
    model
        A module or function from ``(P, *input_shape)`` to P outputs, each depending on its own sample alone.
        It is copied: the caller's is never touched.
    start, end
        ``(*input_shape)``, floating. The line is x(t) = start + t/length (end - start), t in [0, length].
    length
        The line's length in units of t, positive.
    outputs
        None (all, flattened to m; up to 64), indices into these, or a callable from what the model returns to
        a tensor ``(P, m)``.
    dtype
        The floating type of the measurement, whatever that of the model.

    Returns
    -------
    LineTrace

    Raises
    ------
    TypeError, ValueError
        For ends that are no floating tensors of one shape, NaN or infinity in them or in the output, a length
        that is not positive, batch norm or dropout in training mode, and a model that reads numbers out of its
        tensors (``if x.sum() > 0``), whose decisions no trace can see.

    Notes
    -----
    Cost: about one row of work for each piece and layer, where a plain pass needs one for each point. An
    operation that is not piecewise linear (a smooth activation, a product of two branches) or that switches
    unseen (``x * (x > 0)``) makes the trace uncertified, with the stretch and the operation in `gaps`.

    Carrying linear pieces through a network: M. Sotoudeh and A. Thakur, "Computing Linear Restrictions of
    Neural Networks" (NeurIPS 2019); here with one tangent for each piece, whatever the model's code.
    """
    return Tracer(model, outputs, dtype).trace(start, end, length)


@dataclass
class _Stretch:
    """One stretch, traced: its knots, who made them, slopes ``(n, m)`` and values ``(n + 1, m)`` at knots."""

    knots: Tensor
    makers: Tensor
    slopes: Tensor
    values: Tensor
    layers: list[str]
    gaps: list[tuple[float, float, str]]


class Tracer:
    """Traces line after line through one model: what is found out about the model once serves all of them."""

    def __init__(self, model, outputs, dtype):
        self.model, self.outputs, self.dtype = checked_copy(model, dtype), outputs, dtype
        self.eps = torch.finfo(dtype).eps
        self.closest = 450 * self.eps  # 1e-13 in float64
        self.widths: list[int] = []
        self.out_of_sight: list[str] | None = None
        self.step = 0.25  # a stretch, as a part of the line
        self.scope = Scope(self.model)

    def trace(self, start: Tensor, end: Tensor, length: float = 1.0, gradient: bool = False) -> LineTrace:
        """One line. With ``gradient``, `mean_gradient` is then the first output's mean gradient over it, or None."""
        start, end = valid_ends(start, end)
        check({"length": length}, {"length": _LENGTH})
        length = float(length)
        home = home_of(self.model, start)
        start, end = (side.detach().to(home, self.dtype) for side in (start, end))
        # One line, whichever end it is read from: the mirrored line gives the mirrored result to the last bit.
        turned = comes_later(start, end)
        self.start, self.end = (end, start) if turned else (start, end)
        self.direction = (self.end - self.start).requires_grad_(gradient)
        self.room = _ROOM.get(home.type, _ROOM["cpu"])
        self.probes = 0
        # Other attention kernels than the plain one have no forward-mode AD.
        with torch.set_grad_enabled(gradient), sdpa_kernel(SDPBackend.MATH), eagerly():
            if self.out_of_sight is None:
                self.out_of_sight = self.hidden()
            with self.scope():
                stretches = self.run(bool(self.out_of_sight))
        stretches[0].gaps[:0] = [(0.0, 1.0, reason) for reason in self.out_of_sight]
        self.mean_gradient = self.direction.grad
        return _assemble(self, stretches, length, turned)

    def hidden(self) -> list[str]:
        """Sentences on what the model does out of sight: nothing of it depends on the line, as far as a trace sees."""
        x = self.point(0.0)
        with runs(x.dtype, x, self.model):
            hidden = hidden_switches(self.model, x, self.scope, self.point(0.6180339887))
        return [found.sentence for found in hidden if found.way in ("outside", "lost", "steps") or (
            found.way == "inside" and found.switches)]

    def run(self, gap: bool) -> list[_Stretch]:
        """The whole line, in stretches whose pieces fit: each as long as the last ones' density allows.

        Where the line is a ``gap`` anyway, the model is followed on a short stretch alone, for what it is refused for.
        """
        found, at = [], 0.0
        if not self.widths or gap:
            # A stretch of next to no length tells the sizes of all tensors and a first density.
            if self.stretch(0.0, 2.0**-12) is None:
                self.step = 2.0**-13
            if gap:
                return [self.blank(0.0, 1.0, [], [])]
        step = self.step
        while at < 1.0:
            # Irrational steps: a unit that switches on a round number does so inside a stretch.
            stop = at + step * 0.9754878
            if stop > 1.0 - 0.25 * step:
                stop = 1.0
            stretch = self.stretch(at, stop)
            if stretch is None:
                if step < 1e-9:
                    raise MemoryError("one stretch of 1e-9 of the line has more pieces than fit: "
                                      "trace it with dtype=torch.float32, or a smaller model")
                step *= self._fits
                continue
            if self.direction.requires_grad:
                # The outputs' difference over the stretch is linear in the line's direction, the pieces held fixed.
                rise = stretch.slopes[:, 0] @ stretch.knots.diff().to(stretch.slopes.dtype)
                if rise.requires_grad:
                    rise.backward()
                stretch.slopes, stretch.values = stretch.slopes.detach(), stretch.values.detach()
            found.append(stretch)
            at = stop
            step *= min(4.0, max(0.5, 0.8 / max(self._full, 1e-3)))
        self.step = min(step, 2.0)
        return self.joined(found)

    def joined(self, stretches: list[_Stretch]) -> list[_Stretch]:
        """The same, with a stretch of its own around each seam that happens to be a kink."""
        scale = max(float(part.slopes.abs().max()) for part in stretches)
        found = stretches[:1]
        for after in stretches[1:]:
            before = found[-1]
            if float((after.slopes[0] - before.slopes[-1]).abs().max()) > _seen(self.eps) * scale:
                left = float(before.knots[-2:].mean())
                right = float(after.knots[:2].mean())
                seam = self.stretch(left, right)
                if seam is not None:
                    before.knots[-1], after.knots[0] = left, right
                    before.values[-1], after.values[0] = seam.values[0], seam.values[-1]
                    found.append(seam)
            found.append(after)
        return found

    def stretch(self, begin: float, stop: float) -> _Stretch | None:
        """One stretch, or None where it has too many pieces."""
        knots = torch.tensor([begin, stop], dtype=torch.float64, device=self.start.device)
        line = Line(knots, self.closest)
        record = Record(line, self.scope, _rounding(self.eps), self.widths, self.room)
        carrier = Carrier(record)
        x = self.point(begin)
        carrier.start(x, Rows(0, x.detach().clone(), self.direction[None, None]))
        try:
            with carrier:
                result = choose_outputs(self.model(x), self.outputs, 1)
        except TooManyPieces as full:
            self.scope.stack.clear()
            self._fits = min(0.5, 0.7 * full.args[1] / full.args[0])
            return None
        except NothingLeft:
            self.scope.stack.clear()
            self._full = 0.0
            return self.blank(begin, stop, record.layers, record.gaps)
        if not self.widths:
            self.widths = [max((numbers for layer, numbers in record.sizes if layer > number), default=1)
                           for number in range(len(record.layers))]
        rooms = [self.room // width for width in self.widths]
        counts = torch.bincount(line.makers + 1, minlength=len(rooms) + 1).cumsum(0)[1:].tolist()
        self._full = max(((count - 1) / max(2, room) for count, room in zip(counts, rooms, strict=False)),
                         default=0.01)
        rows = carrier.rows(result)
        slopes = rows.tangents.reshape(-1, result.numel())
        slopes = slopes.expand(line.count, -1)
        left = line.ends(rows)[0].reshape(-1, result.numel()).expand(line.count, -1)
        last = left[-1:] + slopes[-1:] * float(line.lengths[-1])
        self.probes += line.count
        if not bool(torch.isfinite(left).all() & torch.isfinite(slopes).all()):
            raise refusal("nan line", begin=begin, stop=stop)
        return _Stretch(line.knots, line.makers, slopes, torch.cat([left, last]), record.layers, record.gaps)

    def blank(self, begin: float, stop: float, layers, gaps) -> _Stretch:
        """A stretch that is a gap, as one piece: the plain model's values at its ends."""
        knots = torch.tensor([begin, stop], dtype=torch.float64, device=self.start.device)
        values = self.plain(knots)
        return _Stretch(knots, torch.full_like(knots, -1, dtype=torch.long), values.diff(dim=0) / (stop - begin),
                        values, layers, gaps)

    def point(self, time: float) -> Tensor:
        """The line's point, as a batch of one."""
        return (self.start + time * (self.end - self.start))[None].clone()

    def plain(self, times: Tensor) -> Tensor:
        """The plain model's outputs ``(P, m)`` at ``times (P,)``, as one batch."""
        self.probes += len(times)
        points = torch.stack([self.point(time)[0] for time in times.tolist()])
        return choose_outputs(self.model(points), self.outputs, len(times))


def _rounding(eps: float) -> float:
    """By what part of their size numbers may differ from those of a straight line through rounding."""
    return 1e-9 if eps < 1e-10 else 1e-3


def _seen(eps: float) -> float:
    """The smallest jump that stands out of rounding, as a fraction of the steepest slope."""
    return 4500 * eps  # 1e-12 in float64


def _assemble(tracer: Tracer, stretches: list[_Stretch], length: float, turned: bool) -> LineTrace:
    """Kinks of all stretches, held against the plain model."""
    knots = torch.cat([stretches[0].knots[:1], *[part.knots[1:] for part in stretches]])
    slopes = torch.cat([part.slopes for part in stretches])
    values = torch.cat([part.values[:-1] for part in stretches])
    gaps = [gap for part in stretches for gap in part.gaps] + _disagreements(tracer, stretches, knots, slopes,
                                                                             values)
    makers = [name for part in stretches for name in [None, *[part.layers[maker] for maker in
                                                             part.makers[1:-1].tolist()]]][1:]
    jumps, times = slopes.diff(dim=0), knots[1:-1]
    scale = slopes.abs().amax(0)
    seen = (jumps.abs() > _seen(tracer.eps) * scale).any(1)
    gaps = _merged(gaps)
    for left, right, _ in gaps:
        seen &= (times < left) | (times > right)
    ends = torch.cat([knots, knots.new_tensor([end for gap in gaps for end in gap[:2]])])
    ends = torch.cat([ends[:1], times[seen], ends[len(knots) - 1:]]).unique()
    at = (torch.searchsorted(knots, ends, right=True) - 1).clamp(0, len(slopes) - 1)
    values = values[at] + (ends - knots[at])[:, None].to(values.dtype) * slopes[at]
    middles = (ends[1:] + ends[:-1]) / 2
    slopes = slopes[(torch.searchsorted(knots, middles) - 1).clamp(0, len(slopes) - 1)] / length
    for left, right, _ in gaps:
        slopes[(middles > left) & (middles < right)] = torch.nan
    times, jumps, ends = times[seen] * length, jumps[seen] / length, ends * length
    layers = [makers[index] or "" for index in seen.nonzero()[:, 0].tolist()]
    if turned:
        ends, values, slopes = length - ends.flip(0), values.flip(0), -slopes.flip(0)
        times, jumps, layers = length - times.flip(0), jumps.flip(0), layers[::-1]
        gaps = [(1 - right, 1 - left, reason) for left, right, reason in reversed(gaps)]
    gaps = [(left * length, right * length, reason) for left, right, reason in gaps]
    return LineTrace(times, jumps, layers, jumps.abs().sum(0), not gaps, gaps, tracer.probes, ends,
                     values, slopes)


def _disagreements(tracer, stretches, knots, slopes, values) -> list[tuple[float, float, str]]:
    """Stretches and pieces in which the trace does not continue to what the plain model gives."""
    found = []
    scale = values.abs().amax(0) + slopes.abs().amax(0) * 1e-3 + 1e-300
    allowed = scale * _rounding(tracer.eps)
    random = torch.Generator().manual_seed(0)
    drawn = torch.rand(_CHECKS, generator=random, dtype=torch.float64).to(knots.device)
    piece = (torch.searchsorted(knots, drawn) - 1).clamp(0, len(slopes) - 1)
    lengths = knots.diff()[piece]
    # Two points of each piece drawn: they show its slope too.
    at = torch.cat([knots[piece] + lengths / 4, knots[piece] + lengths * 3 / 4, knots[:1], knots[-1:]])
    piece = torch.cat([piece, piece, torch.tensor([0, len(slopes) - 1], device=knots.device)])
    plain = tracer.plain(at)
    ours = values[piece] + (at - knots[piece])[:, None].to(values.dtype) * slopes[piece]
    for k in ((plain - ours).abs() > allowed).any(1).nonzero()[:, 0].tolist():
        found.append((float(knots[piece[k]]), float(knots[piece[k] + 1]), sentence("unseen")))
    for before, after in itertools.pairwise(stretches):
        if bool(((before.values[-1] - after.values[0]).abs() > allowed).any()):
            found.append((float(before.knots[0]), float(before.knots[-1]), sentence("apart")))
    return found


def _merged(gaps: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Gaps that touch, joined; each keeps the reason found first, which is the earliest operation's."""
    order = sorted(range(len(gaps)), key=lambda k: (gaps[k][0], k))
    found: list[tuple[float, float, int]] = []
    for k in order:
        left, right, _ = gaps[k]
        if found and left <= found[-1][1]:
            found[-1] = (found[-1][0], max(right, found[-1][1]), min(found[-1][2], k))
        else:
            found.append((left, right, k))
    return [(left, right, gaps[k][2]) for left, right, k in found]


def valid_ends(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Two finite floating tensors of one shape, or a sentence."""
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}: give a torch tensor of the model's input "
                            "shape")
        if not value.is_floating_point():
            raise TypeError(f"{name} is of type {value.dtype}: a line needs floating numbers, so convert it "
                            "with .double()")
    if start.shape != end.shape:
        raise ValueError(f"start has shape {tuple(start.shape)} and end {tuple(end.shape)}: a line joins "
                         "two inputs of one shape")
    if start.device != end.device:
        raise ValueError(f"start is on {start.device} and end on {end.device}: move one to the other's "
                         "device")
    for name, value in (("start", start), ("end", end)):
        if not bool(torch.isfinite(value).all()):
            index = tuple((~torch.isfinite(value)).nonzero()[0].tolist())
            raise ValueError(f"{name} is NaN or infinite at index {index}: a line needs finite ends")
    return start, end


def comes_later(start: Tensor, end: Tensor) -> bool:
    """Whether the line is to be read from its end: where the two first differ, the smaller comes first."""
    differ = (start != end).flatten().nonzero()
    return bool(len(differ) and start.flatten()[differ[0, 0]] > end.flatten()[differ[0, 0]])

