"""How far a measurement may be off, and where: nets under the attribution.

Between two samples the outputs' slopes change by what the units' switches add up to, with their signs, and by the
curvature of what is smooth. What stands out of that sum beyond its neighbours is a corner that no unit accounts for;
sampled again and again more finely, curvature fades with the spacing and a corner stays (`look_closer`).

Gains that differ between the two ends of an interval give two readings of its kinks. Half their difference is how far
those may be off; where something steep lies between the samples it is as large as the kinks themselves. And a unit
that switches there and back between two samples is not seen at all, nor is what others do meanwhile. On a piecewise
linear path a unit's input turns back only where another unit switches. So intervals are measured again by themselves,
beside the moments at which units switch: those that carry most of the doubt, and some in proportion to their moments,
from which what all others lack is extrapolated (`refine`).
"""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from smpcore.attribution.measurement import LayerSmp, Part, added
from smpcore.attribution.simultaneous import Moments
from smpcore.inspection.refusals import refusal, sentence

__all__ = ["Course", "SamplingWarning", "look_closer", "refine"]

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
#: What is in doubt, or missing, over this part of the total, and of the steepest slope, is too much.
_DOUBT = 0.05
#: Rounds of `refine`; intervals checked in the first, at least, and one of so many; how many times as many in each
#: further one; how many new intervals, for each of the path's and beyond, end it; and how many numbers the layers may
#: hold for those beyond, together, so that few samples of a large model are not followed by as many as of a small one.
_ROUNDS, _CHECKS, _ONE_OF, _MORE, _BUDGET, _BEYOND, _HELD = 12, 3, 64, 2, 1, 64, 32_000_000
#: How far beside a moment an interval is cut, as a part of it; where else; and samples for each interval, at most.
_BESIDE, _EVENLY, _AGAIN = 1e-5, (0.5,), 8
#: How many units in the last place a value may be off by: it is a sum of many terms.
_ULPS = 64
#: Slopes that differ by rounding at neighbouring numbers are known to so many times that.
_ROUNDING = 1e5
#: Places of the path at which that is seen.
_PLACES = 8


class SamplingWarning(UserWarning):
    """The path's samples are too few: gains differ, or units switch there and back, between two of them."""


class Course:
    """A path's intervals, as its chunks fill them in."""

    def __init__(self, times: Tensor, part: Part):
        like = part.values
        self.times = times
        self.values, self.slopes = (like.new_zeros(len(times), like.shape[1]) for _ in range(2))
        self.rest, self.doubt = (like.new_zeros(len(times) - 1, like.shape[1]) for _ in range(2))
        self.moments = Moments.none(len(times) - 1, like)
        self.layers: dict[str, LayerSmp] = {}
        self.seams: list[int] = []
        self.rounding: Tensor | None = None

    def add(self, part: Part, start: int, tolerance: float) -> None:
        """Fill in a chunk; its first sample is the last of the chunk before."""
        stop = start + len(part.values)
        again, once = part.values[0], self.values[start]
        if start and float((again - once).abs().max()) > tolerance * (1 + float(once.abs().max())):
            raise refusal("varies", at=f" at t = {float(self.times[start]):g}")
        self.values[start:stop], self.slopes[start:stop] = part.values, part.slopes
        self.rest[start:stop - 1], self.doubt[start:stop - 1] = part.rest, part.doubt
        for all_, some in zip(self.moments, part.moments, strict=True):
            all_[start:stop - 1] = some
        if start and (int(self.moments.count[start - 1]) < -1 or int(self.moments.count[start]) in (-1, -3)):
            self.seams.append(start)
        self.count(part)

    def count(self, part: Part) -> None:
        """Add a part's layers."""
        self.layers = added(self.layers, part.layers)

    def close_seams(self, measure: Callable[..., Part]) -> None:
        """Count what switches on a sample that two chunks share as within one: both intervals beside have a part."""
        for sample in self.seams:
            a, b, c = self.times[sample - 1:sample + 2]
            part = measure(torch.stack([a, b, c, a, b, b, c]), weight=a.new_tensor([1, 1, 0, -1, 0, -1]))
            self.doubt[sample - 1:sample + 1] = part.doubt[:2]
            self.count(part)

    @property
    def total(self) -> Tensor:
        """``(m,)`` SMP so far."""
        return sum((layer.smp for layer in self.layers.values()), torch.zeros_like(self.values[0]))

    @property
    def scale(self) -> Tensor:
        """``(m,)`` each output's steepest slope, or its total, or what rounding leaves in doubt, where that is more."""
        size = torch.maximum(self.total, self._size)
        return size if self.rounding is None else torch.maximum(size, _ROUNDING * self.rounding)

    @functools.cached_property
    def _size(self) -> Tensor:
        """What the samples alone tell of `scale`; asked for when all of them are there."""
        kind = self.values.dtype
        # A slope that changes a value by less than its rounding, over the whole path, is rounding itself.
        unseen = _ULPS * torch.finfo(kind).eps / _LEAST.get(kind, 1e-1) / float(self.times[-1] - self.times[0])
        return torch.maximum(self.slopes.abs().amax(0), unseen * self.values.abs().amax(0)).clamp_min(1e-300)

    def know_rounding(self, measure: Callable[..., Part]) -> None:
        """Find by how much slopes differ between neighbouring numbers, at most, at some places of the path."""
        if self.rounding is None:
            chosen = torch.linspace(0, len(self.times) - 2, _PLACES).round().long().unique().to(self.times.device)
            # Off the intervals' middles, where a path that is symmetric may have a corner.
            t = torch.lerp(self.times[chosen], self.times[chosen + 1], 0.38)[:, None]
            step = 1e-9 * self.times.diff().min() + 8 * torch.finfo(t.dtype).eps * t.abs()
            times = (t + step * torch.arange(9, device=t.device)).flatten()
            slopes = measure(times, weight=torch.zeros_like(times[1:])).slopes.unflatten(0, (len(chosen), 9))
            self.rounding = (slopes.amax(1) - slopes.amin(1)).amax(0)


def _apart(rest: Tensor) -> Tensor:
    """How far each interval's rest stands out of its neighbours' mean, which is what curvature leaves."""
    beside = torch.zeros_like(rest)
    if len(rest) > 1:
        beside = torch.cat([rest[1:2], (rest[2:] + rest[:-2]) / 2, rest[-2:-1]])
    return (rest - beside).abs()


def refine(measure: Callable[..., Part], course: Course, size: int, numbers: float) -> Tensor:
    """Measure intervals again by themselves; how far the total may be off all the same, ``(m,)``.

    Parameters
    ----------
    measure
        ``measure(times, weight=…)`` as `Measurement.part`.
    course
        Its layers' totals are improved in place.
    size
        Samples at once, at most.
    numbers
        How many numbers the model's layers hold for one sample.
    """
    left, right, doubt, moments = course.times[:-1], course.times[1:], course.doubt, course.moments
    checks, lacks = max(_CHECKS, len(left) // _ONE_OF), True
    most = (1 + _BUDGET) * len(left) + min(_BEYOND, _HELD // max(1, round(numbers)))
    missing = error = found = torch.zeros_like(course.total)
    more = missing[None]
    for _ in range(_ROUNDS):
        share = doubt.sum(0) / course.scale
        unsure = doubt[:, int(share.argmax())] * (share.amax() > _DOUBT)
        if not (lacks or bool(unsure.any())) or len(left) > most:
            break
        chosen, chance = _checks(moments, unsure, checks, lacks)
        if not bool(chosen.any()):
            break
        try:
            parts = [_again(measure, course, left[rows], right[rows], moments.at[rows])
                     for rows in chosen.nonzero()[:, 0].split(max(1, size // _AGAIN))]
        except Exception:
            # A path may know its own samples only, and finer ones are a second look, not the measurement.
            break
        more, *new = (torch.cat(part) for part in zip(*parts, strict=True))
        left, right, doubt, *moments = (torch.cat([old[~chosen], part]) for old, part in
                                        zip((left, right, doubt, *moments), new, strict=True))
        moments, chance = Moments(*moments), chance[chosen, None]
        # What was found, for each interval that was as likely to be chosen and was not (Horvitz and Thompson, 1952).
        missing, error = (more * (1 / chance - 1)).sum(0), (more**2 * (1 - chance)).div(chance**2).sum(0).sqrt()
        missing, found, checks = missing.abs(), more.sum(0).abs(), checks * _MORE
        lacks = bool((torch.maximum(missing, found) > _DOUBT * course.scale).any())
        if lacks or bool((doubt.sum(0) > _DOUBT * course.scale).any()):
            course.know_rounding(measure)
    if lacks:
        missing = missing + found
    doubtful, missing = doubt.sum(0), torch.where(missing > 2 * error, missing, 0.0)
    off, gone = (part / course.scale for part in (doubtful, missing))
    output = int(torch.maximum(off, gone).argmax())
    if float(torch.maximum(off, gone)[output]) > _DOUBT:
        near = left[int(doubt[:, output].argmax())]
        why = "gains differ" if off[output] > gone[output] else "units switch there and back"
        warnings.warn(sentence("few samples", output=output, total=float(course.total[output]), why=why,
                               off=float((doubtful + missing)[output]), t=float(near)), SamplingWarning, stacklevel=3)
    return doubtful + missing


def _checks(moments: Moments, unsure: Tensor, count: int, lacks: bool) -> tuple[Tensor, Tensor]:
    """Some of the intervals, with chances in proportion to their moments, to those that no output heeds, and to doubt.

    Returns
    -------
    chosen, chance
        ``(n,)`` each.
    """
    free = moments.count >= 0
    parts = [unsure.double(), *(part.double() * lacks for part in (moments.count, moments.silent))]
    weight = sum(part * free / (part * free).sum().clamp_min(1e-300) for part in parts)
    chance = (count * weight / weight.sum().clamp_min(1e-300)).clamp(max=1.0)
    passed = chance.cumsum(0) + 0.5
    return passed.floor() > (passed - chance).floor(), chance


def _again(measure, course: Course, left: Tensor, right: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    """Measure c intervals once more, with further samples between their ends.

    Returns
    -------
    more, left, right, doubt, *moments
        ``(c, m)`` the SMP that each has gained, and the new intervals as `refine` keeps them.
    """
    inside = torch.cat([at.to(left) + _BESIDE, left[:, None] * 0 + left.new_tensor(_EVENLY)], 1)
    # Back to the start at last: the interval as it was measured before, to be taken away.
    ends = left.new_tensor([0.0, 1.0, 0.0]).expand(len(left), 3)
    part = torch.cat([ends[:, :1], inside.clamp(_BESIDE, 1 - _BESIDE).sort(1).values, ends[:, 1:]], 1)
    kept = torch.nn.functional.pad(part.diff(dim=1).abs() > _BESIDE / 2, (1, 0), value=True)
    rows = torch.arange(len(left), device=at.device)[:, None].expand_as(kept)[kept]
    times = torch.lerp(left[rows], right[rows], part[kept])
    weight = torch.where(rows[1:] == rows[:-1], times.diff().sign(), 0.0)
    part = measure(times, weight=weight)
    course.count(part)
    more = part.read.new_zeros(len(left), part.read.shape[1]).index_add(
        0, rows[:-1], weight.to(part.read)[:, None] * part.read)
    fine = weight > 0
    return more, times[:-1][fine], times[1:][fine], part.doubt[fine], *(each[fine] for each in part.moments)


def look_closer(measure: Callable[..., Part], course: Course, dtype: torch.dtype) -> Tensor:
    """Warn of a jump of the slope that no unit accounts for; ``(m,)`` the rests that stand out, over all intervals."""
    apart = _apart(course.rest)
    least = _LEAST.get(dtype, 1e-1) * course.scale
    output = int((apart.amax(0) / least).argmax())
    interval = int(apart[:, output].argmax())
    if bool(apart[interval, output] > least[output]):
        course.know_rounding(measure)
        least = _LEAST.get(dtype, 1e-1) * course.scale
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
    warnings.warn(sentence("corner", t=float(left), output=output, jump=rests[-1]), stacklevel=4)
