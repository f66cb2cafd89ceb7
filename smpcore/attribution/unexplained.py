"""How far a measurement may be off, and where: two nets under the attribution.

Between two samples the outputs' slopes change by what the units' switches add up to, with their signs, and by the
curvature of what is smooth. What stands out of that sum beyond its neighbours is a corner that no unit accounts for;
sampled again and again more finely, curvature fades with the spacing and a corner stays (`look_closer`).

Gains that differ between the two ends of an interval give two readings of its kinks. Half their difference is how far
those may be off; where something steep lies between the samples it is as large as the kinks themselves. Intervals
that carry most of it are measured again by themselves, at more samples (`refine`).
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from smpcore.attribution.measurement import LayerTotal, Part

__all__ = ["Course", "look_closer", "refine"]

#: Samples of each round of `look_closer`, over an interval with a third of its width on either side: about a tenth
#: each time.
_SAMPLES = 17
_BEFORE, _BEHIND = 0.31, 0.34
#: Its rounds go on down to this part of the first interval.
_FINEST = 1e-6
#: A rest that has come down to this part of the first was smooth.
_SMOOTH = 5e-3
#: Smallest rest, as a part of the steepest slope or the total, that is worth a look, and above rounding.
_LEAST = {torch.float64: 1e-4, torch.float32: 1e-2}
#: A doubt over this part of the total, and of the steepest slope, is too large.
_DOUBT = 0.05
#: Intervals that are measured again, at most; one that carries less than this part of the doubt is one of many.
_ROUNDS, _CARRIES = 12, 0.05


class Course:
    """A path's intervals, as its chunks fill them in."""

    def __init__(self, times: Tensor, part: Part):
        like = part.values
        self.times = times
        self.values, self.slopes = (like.new_zeros(len(times), like.shape[1]) for _ in range(2))
        self.rest, self.doubt = (like.new_zeros(len(times) - 1, like.shape[1]) for _ in range(2))
        self.layers: dict[str, LayerTotal] = {}

    def add(self, part: Part, start: int, tolerance: float) -> None:
        """Fill in a chunk; its first sample is the last of the chunk before."""
        stop = start + len(part.values)
        again, once = part.values[0], self.values[start]
        if start and float((again - once).abs().max()) > tolerance * (1 + float(once.abs().max())):
            raise ValueError(f"the model's output at t = {float(self.times[start]):g} changes between calls "
                             "(random numbers, a counter) or with the batch it is computed in: it is not a "
                             "function of t; call model.eval(), fix the random numbers, or reset its state")
        self.values[start:stop], self.slopes[start:stop] = part.values, part.slopes
        self.rest[start:stop - 1], self.doubt[start:stop - 1] = part.rest, part.doubt
        for name, layer in part.layers.items():
            self.layers[name] = self.layers[name].plus(layer) if name in self.layers else layer

    @property
    def total(self) -> Tensor:
        """``(m,)`` SMP so far."""
        return sum((layer.smp for layer in self.layers.values()), torch.zeros_like(self.values[0]))

    @property
    def scale(self) -> Tensor:
        """``(m,)`` each output's steepest slope, or its total where that is more."""
        return torch.maximum(self.total, self.slopes.abs().amax(0)).clamp_min(1e-300)


def _apart(rest: Tensor) -> Tensor:
    """How far each interval's rest stands out of its neighbours' mean, which is what curvature leaves."""
    beside = torch.zeros_like(rest)
    if len(rest) > 1:
        beside = torch.cat([rest[1:2], (rest[2:] + rest[:-2]) / 2, rest[-2:-1]])
    return (rest - beside).abs()


def refine(measure: Callable[..., Part], course: Course) -> Tensor:
    """Measure by themselves the intervals whose kinks are in doubt; the doubt that is left, ``(m,)``.

    Parameters
    ----------
    measure
        ``measure(times, start, stops)`` as `Measurement.part`.
    course
        Its layers' totals are improved in place.
    """
    doubt, left, right = course.doubt, course.times[:-1], course.times[1:]
    first, last = course.times[0], course.times[-1]
    for rounds in range(_ROUNDS + 1):
        left_over = doubt.sum(0)
        share = left_over / course.scale
        output = int(share.argmax())
        worst = int(doubt[:, output].argmax())
        if float(share[output]) <= _DOUBT:
            return left_over
        few = float(doubt[worst, output]) > _CARRIES * float(left_over[output])
        if rounds == _ROUNDS or not few:
            break
        ends = torch.stack([left[worst], right[worst]])
        finer = torch.lerp(*ends, torch.linspace(0, 1, _SAMPLES, dtype=ends.dtype, device=ends.device))
        try:
            parts = [measure(times, 0 if ends[0] == first else -1, bool(ends[1] == last)) for times in (ends, finer)]
        except Exception:
            # A path may know its own samples only, and finer ones are a second look, not the measurement.
            break
        for part, sign in zip(parts, (-1, 1), strict=True):
            for name, layer in part.layers.items():
                course.layers[name] = course.layers[name].plus(layer, sign)
        keep = torch.arange(len(left), device=left.device) != worst
        doubt = torch.cat([doubt[keep], parts[1].doubt])
        left, right = torch.cat([left[keep], finer[:-1]]), torch.cat([right[keep], finer[1:]])
    warnings.warn(f"the total of output {output}, {float(course.total[output]):.3g}, may be off by "
                  f"{float(left_over[output]):.3g}: gains differ between neighbouring samples, most near "
                  f"t = {float(left[worst]):g}; take more samples there", stacklevel=3)
    return left_over


def look_closer(measure: Callable[..., Part], course: Course, dtype: torch.dtype) -> Tensor:
    """Warn of a jump of the slope that no unit accounts for; ``(m,)`` the rests that stand out, over all intervals."""
    apart = _apart(course.rest)
    least = _LEAST.get(dtype, 1e-1) * course.scale
    output = int((apart.amax(0) / least).argmax())
    interval = int(apart[:, output].argmax())
    if bool(apart[interval, output] > least[output]):
        rest = float(apart[interval, output])
        _warn_of_corner(measure, course.times, interval, output, rest, float(least[output]), dtype)
    return torch.where(apart > least, apart, 0.0).sum(0)


def _warn_of_corner(measure, path_times: Tensor, interval: int, output: int, rest: float, least: float, dtype) -> None:
    """Warn where a corner is left, however finely the interval is sampled."""
    ends = path_times[0], path_times[-1]
    left, right = path_times[interval], path_times[interval + 1]
    rests, begun = [rest], right - left
    finest = max(_FINEST, float(1e3 * torch.finfo(dtype).eps / begun))
    while right - left > finest * begun:
        # Beyond both ends, for a switch on a sample may be seen on either side of it.
        width = right - left
        window = torch.stack([left - _BEFORE * width, right + _BEHIND * width]).clamp(*ends)
        times = torch.lerp(*window, torch.linspace(0, 1, _SAMPLES, dtype=window.dtype, device=window.device))
        try:
            part = measure(times)
        except Exception:
            # Nothing more can be said where a finer path fails, as one that knows some moments only does: this is
            # a second look, not the measurement.
            return
        apart = _apart(part.rest)[:, output]
        place = int(apart.argmax())
        left, right = times[place], times[place + 1]
        rests.append(float(apart[place]))
        if rests[-1] < max(_SMOOTH * rest, least):
            return
    # What lies at the path's own end has nothing beyond it to bend to.
    stays = len(rests) > 2 and rests[-1] > 0.5 * rests[-2] > 0.25 * rests[-3]
    if not stays or left == ends[0] or right == ends[1]:
        return
    warnings.warn(f"at t = {float(left):.9g} the slope of output {output} jumps by {rests[-1]:.3g}, and no unit that "
                  "is followed accounts for it, so that the total misses it: something else has a corner there "
                  "(a square root of a square, a power of one): write it with abs, relu or maximum, or "
                  "measure with smp from samples", stacklevel=4)
