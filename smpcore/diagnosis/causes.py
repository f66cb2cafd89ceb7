"""Why an output jerks at a frame rate: its second differences from frame to frame, divided among their causes.

Let z_n be the outputs for the frames x_n, and z̃_n those for x̃_n, the same inputs moved smoothly (each the value of a
quartic fitted to 15 frames around it). The input's own jerk adds Δ²(z − z̃), with Δ²z_n = z_{n+1} − 2z_n + z_{n−1}. The
rest comes from the network: with the gains g of frame n, an operation y = op(a) adds

    c_n = ⟨g_y, Δ²y_n⟩ − ⟨g_a, Δ²a_n⟩

to Δ²z̃_n, which is 0 for a linear operation. With the model's derivative J_n at frame n and the sum over all operations,

    Δ²z̃_n = J_n Δ²x̃_n + Σ c_n

holds exactly, whatever switches between the frames. The part of Δ²z that a smooth curve through its neighbours follows
is motion; the rest is jerk. Let S be the quadratic fit over 13 frames and s the sign of Δ²z. Then the share of a part c
of Δ²z is Σ s (c − Sc) / Σ|Δ²z|, and that of the motion Σ s S(Δ²z) / Σ|Δ²z|. These are shares of Σ|Δ²z|/h, the slope
variation at the frame's step h, and add up to 1. If the jerk is white, S counts an eighth to a quarter of it as motion.
All outputs together take one backward pass (our own derivation, in notebook 09, section 2). J_n Δ²x_n, of the
linearised model alone, would show the input's own jerk only where that is small: for the face pipeline behind a box
that is off by two pixels the cause would be given as kinks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from scipy.signal import savgol_filter
from torch import Tensor

import smpcore
from smpcore.arguments import checked_copy, checked_inputs, checked_times, choose_outputs, home_of, runs
from smpcore.arguments import device as devices
from smpcore.attribution import Attribution, Suggestion, attribute
from smpcore.inspection import Call, watched

__all__ = ["CAUSES", "Diagnosis", "Part", "smooth_course", "why"]

#: Every cause: in words, and what to do about it.
CAUSES = {
    "motion": ("the motion itself", "nothing: it is smooth at this frame rate"),
    "value jumps": ("value jumps", "replace the operation by a continuous one"),
    "kinks": ("kinks", "make these layers smooth, by `smpcore relax`"),
    "bending": ("smooth but sharp bending", "lower the units' sharpness, or take more frames"),
    "input": ("the input's own", "not your network: steady what feeds it, such as the box of a crop, or take more "
              "frames where it moves far from one to the next"),
    "not repeatable": ("not repeatable", "not your network's layers: the same input gives another output; call eval(), "
                       "and fix what draws random numbers"),
    "decoding": ("decoding", "not your network's layers: replace the selection behind them, an argmax by a soft argmax "
                 "for instance"),
}
#: Frames to which a parabola, the motion, is fitted; the fewest and the most frames of one diagnosis.
_WINDOW, _FEWEST, _MOST = 13, 16, 4000
#: With jerk below this share of the roughness the cause is the motion itself.
_SEEN = 0.2
#: Runs that are compared with the first; if their mean differs by more than this part of the output's range, the
#: output is not repeatable.
_REPEATS, _SAME = 3, 1e-9
_AT_ONCE = 34
#: Selections behind a network, whose part is "decoding"; any other operation that is not followed is named itself.
_DECODING = ("argmax", "argmin", "topk", "sort", "argsort", "median", "mode", "kthvalue", "long", "int")


@dataclass(frozen=True)
class Part:
    """What one place adds: its ``cause`` (a key of `CAUSES`), the ``layer``, its ``kind``, and its ``share``."""

    cause: str
    layer: str
    kind: str
    share: float


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What makes a model's outputs jerk from frame to frame; `str` gives it as text.

    Attributes
    ----------
    rate
        Frames per unit of t.
    roughness
        Σ|Δ²z|/h over the frames, summed over the outputs, in output units per unit of t.
    acceleration_error
        Mean |Δ²z − SΔ²z|/h²: how far the acceleration is from its own smooth course, in output units per unit of t².
    shares
        By cause, as in `CAUSES`; they add up to 1. A negative share makes the output smoother.
    parts
        The same by layer or operation, the largest first.
    values
        ``(N, m)``.
    attribution
        Of the same path, for SMP; None where the model is refused, with ``refusal`` saying why.
    """

    rate: float
    roughness: float
    acceleration_error: float
    shares: dict[str, float]
    parts: list[Part]
    values: Tensor
    attribution: Attribution | None
    refusal: str

    @property
    def jerk(self) -> float:
        """The share of the roughness that is not motion."""
        return 1 - self.shares["motion"]

    @property
    def cause(self) -> str:
        """The cause of most of the jerk; ``"motion"`` where there is hardly any jerk."""
        return max((name for name in self.shares if name != "motion"), key=self.shares.get) \
            if self.jerk >= _SEEN else "motion"

    @property
    def sentence(self) -> str:
        """The largest causes of the jerk, and where they arise."""
        at = f"At {self.rate:g} frames per unit of t"
        if self.cause == "motion":
            return f"{at} the output moves smoothly: {self.shares['motion']:.0%} of its roughness is the motion itself."
        places = [f"{part.layer} {part.share:.0%}" for part in self.parts
                  if part.cause == self.cause and part.share > 0.1 * self.shares[self.cause]]
        return (f"{at}, {self.shares[self.cause]:.0%} of the output's roughness is {CAUSES[self.cause][0]} "
                f"({', '.join(places[:3])}); {self.shares['motion']:.0%} is the motion itself.")

    @property
    def suggestion(self) -> Suggestion | None:
        """`Attribution.suggest` of the output with the largest SMP; None where there is none."""
        if self.attribution is None or not bool(self.attribution.total.any()):
            return None
        return self.attribution.suggest(output=int(self.attribution.total.argmax()))

    @property
    def advice(self) -> str:
        """What to do: the layers to replace and what to expect, or what to change outside of the network."""
        said = f"What to do: {CAUSES[self.cause][1]}."
        if self.cause == "kinks" and (found := self.suggestion) is not None:
            left = 1 - float(found.expected[found.output] / found.total[found.output])
            said += f" Replace {' and '.join(found.layers)}: expect −{left:.0%} SMP."
        return said

    def to_frame(self):
        """A pandas frame, a row for each part: cause, layer, kind, share; the motion last."""
        pd = smpcore.need("pandas")
        rows = [*self.parts, Part("motion", "", "", self.shares["motion"])]
        return pd.DataFrame([vars(part) for part in rows])

    def to_dict(self) -> dict:
        """Everything but the values, in types that JSON has."""
        found = {name: getattr(self, name) for name in (
            "sentence", "advice", "cause", "rate", "roughness", "acceleration_error", "shares", "refusal")}
        found["parts"] = [vars(part) for part in self.parts]
        if self.attribution is not None:
            found |= {name: getattr(self.attribution, name).tolist()
                      for name in ("total", "unexplained", "value_jumps")}
            found["layers"] = [{"layer": layer.name, "kind": layer.kind, "smp": layer.smp.tolist()}
                               for layer in self.attribution.layers]
        return found

    def __str__(self) -> str:
        lines = [self.sentence, self.advice, ""]
        lines += [f"{share:>7.1%}  {CAUSES[name][0]}" for name, share in self.shares.items() if abs(share) >= 5e-4]
        lines += ["", *(f"{part.share:>7.1%}  {part.layer} ({part.kind})" for part in self.parts[:8])]
        lines += ["", f"roughness Σ|Δ²z|/h {self.roughness:.4g}, acceleration error {self.acceleration_error:.4g}"]
        if self.attribution is None:
            lines.append(f"SMP was not measured: {self.refusal}")
        else:
            lines.append(f"SMP {float(self.attribution.total.sum()):.4g} ± "
                         f"{float(self.attribution.unexplained.sum()):.2g} over all outputs")
        return "\n".join(lines)


def why(model, path: Callable[[Tensor], Tensor], times: Tensor, *,
        outputs: Sequence[int] | Callable | None = None, smp: bool = True) -> Diagnosis:
    """Find the causes of the jerk of a model's outputs along a path at a frame rate.

    Parameters
    ----------
    model
        Any `torch.nn.Module` in evaluation mode, or a function of a tensor. A copy is measured, in float64.
    path
        As `smpcore.attribute` takes it.
    times
        ``(N,)``: when the frames are, evenly spaced; at least 16.
    outputs
        As `smpcore.attribute` takes them; they should be of one unit.
    smp
        Whether to attribute SMP as well, which takes most of the time.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError, ValueError
        For times that are not even, too few or too many; a path or a model that fails; outputs that are not there.
    """
    times = checked_times(times)
    step = float(times[-1] - times[0]) / (len(times) - 1)
    if not _FEWEST <= len(times) <= _MOST or float((times.diff() - step).abs().max()) > 1e-3 * step:
        raise ValueError(f"times: {len(times)} frames: {_FEWEST} to {_MOST} evenly spaced ones are judged at a time")
    model = checked_copy(model, torch.float64)
    moments = times.to(home_of(model, times))

    smooth = _Smoothed(path, moments)

    def values(inputs):
        with torch.no_grad():
            parts = devices.chunks(lambda a, b: _outputs(model, inputs(a, b), outputs), len(times), _AT_ONCE)
            return torch.cat(list(parts))

    z = values(smooth.hard)
    if not bool(z.isfinite().all()):
        raise ValueError(f"the model's output is not finite at frame {int((~z.isfinite()).any(1).nonzero()[0])}")
    second = z.diff(n=2, dim=0)
    rough = float(second.abs().sum())
    parts = Counter()
    if rough > 0:
        # Back through the smooth course: with it, sums over second differences are sums over jerk.
        sign = second.sign() / rough
        back = sign - smooth_course(torch.eye(len(second), dtype=z.dtype)).to(z.device).T @ sign

        def share(part):
            return float((back * part.diff(n=2, dim=0)).sum())

        again, steady = sum(values(smooth.hard) for _ in range(_REPEATS)) / _REPEATS, values(smooth)
        noise = 0.0
        if float((z - again).abs().max()) > _SAME * float(z.max() - z.min()):
            noise = parts["not repeatable", "the same input twice", "random numbers"] = share(z - again)
        found, behind = _shared_out(model, smooth, len(times), outputs, back)
        parts.update(found)
        parts[behind] += share(steady) - sum(found.values())
        parts["input", "the path", "input"] += share(z - steady) - noise
    found = [Part(*key, share) for key, share in parts.most_common() if share]
    shares = {name: sum(part.share for part in found if part.cause == name) for name in CAUSES}
    shares["motion"] = 1 - sum(shares.values())
    attribution, refusal = None, "it was not asked for"
    try:
        if smp:
            attribution, refusal = attribute(model, path, times, outputs=outputs), ""
    except (ValueError, TypeError) as error:
        refusal = str(error)
    second = second.cpu()
    return Diagnosis(1 / step, rough / step, float((second - smooth_course(second)).abs().mean()) / step**2, shares,
                     found, z.cpu(), attribution, refusal)


def smooth_course(second: Tensor) -> Tensor:
    """The smooth part of second differences ``(N, m)``: at each the value of a quadratic fitted to 13 of them."""
    return torch.from_numpy(savgol_filter(second.cpu().numpy(), _WINDOW, 2, axis=0))


class _Smoothed:
    """The path's inputs at frames a to b, moved smoothly: each is the value of a quartic fitted to 15 of them."""

    def __init__(self, path: Callable, times: Tensor):
        self.path, self.times = path, times
        self.weights = torch.from_numpy(savgol_filter(torch.eye(len(times)).double().numpy(), _WINDOW + 2, 4, axis=0))

    def hard(self, a: int, b: int) -> Tensor:
        """The inputs as the path gives them."""
        found = self.path(self.times[a:b])
        return checked_inputs(found, len(self.times[a:b])).to(self.times.device, torch.float64)

    def __call__(self, a: int, b: int) -> Tensor:
        near = self.weights[a:b].any(0).nonzero()
        first, last = int(near.min()), int(near.max()) + 1
        known = self.hard(first, last)
        return torch.einsum("nk,k...->n...", self.weights[a:b, first:last].to(known), known)


def _outputs(model, x: Tensor, outputs) -> Tensor:
    """The outputs ``(P, m)`` for inputs x."""
    with runs(torch.float64, x, model):
        return choose_outputs(model(x), outputs, len(x))


def _shared_out(model, smooth: _Smoothed, count: int, outputs, back: Tensor) -> tuple[Counter, tuple]:
    """What each operation adds along the smooth path, by (cause, layer, kind), and the key of the remainder.

    ``back`` ``(N - 2, m)`` are the weights with which the outputs' second differences are summed up.
    """
    found, behind = Counter(), Counter()

    def work(start, stop):
        calls, z = {}, None

        def answer(call: Call):
            seen = call.describe(smooth=True) if call.moves else None
            if seen is None:
                return call.plain()

            def unit(*inputs):
                # Copies, so that gains are those of this call alone.
                own = [part.clone() for part in inputs]
                y = seen.output(*own)
                y = y if isinstance(y, Tensor) else y[0]  # a selection gives its places as well
                calls[_cause(seen), call.name, seen.kind] = y, *own
                return y

            return call.answered_by(unit)

        def beside(call: Call):
            if call.moves:
                behind["decoding", call.name, call.op] += 1

        first = smooth(start, stop).detach().requires_grad_()
        with suppress(ValueError), torch.enable_grad(), watched(model, answer, beside):
            z = _outputs(model, first.clone(), outputs)
        # The model ran before, without derivatives: numpy within it, for instance, does not run with them.
        if z is None or not z.requires_grad:
            behind["decoding", "model", "no derivative passes it"] += 1
            return False
        ends = [(("input", "the path", "input"), 1, first),
                *((key, 1 - 2 * (place > 0), part) for key, call in calls.items() for place, part in enumerate(call))]
        inner = torch.nn.functional.pad(back[start:stop - 2], (0, 0, 1, 1))
        gains = torch.autograd.grad(z, [part for *_, part in ends], inner, allow_unused=True)
        for (key, way, part), gain in zip(ends, gains, strict=True):
            if gain is not None and (laid := _rows(part.detach(), stop - start)) is not None:
                found[key] += way * float((_rows(gain, stop - start)[1:-1] * laid.diff(n=2, dim=0)).sum())
        return True

    for _ in devices.chunks(work, count, _AT_ONCE, overlap=2):
        pass
    named = sorted(behind, key=lambda key: key[2] not in _DECODING)
    return found, named[0] if named else ("bending", "other operations", "products, norms, softmax")


def _cause(seen) -> str:
    """The cause that a unit of this description is counted as."""
    if seen.jumps:
        return "value jumps"
    return "kinks" if getattr(seen, "hinges", True) else "bending"


def _rows(part: Tensor, count: int) -> Tensor | None:
    """A tensor with the frames in its first dimension, where they can be found."""
    if part.dim() and len(part) % count == 0:
        return part.reshape(count, -1)
    where = [axis for axis, size in enumerate(part.shape) if size == count]
    return part.movedim(where[0], 0).flatten(1) if len(where) == 1 else None
