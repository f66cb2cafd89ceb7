"""A net under the attribution: does the slope jump anywhere by more than the switches seen add up to?

Between two samples the outputs' slopes change by what the units' switches add up to, with their signs, and by the
curvature of what is smooth. Where the rest stands out of its neighbours most, the path is sampled again and again
more finely. Curvature, and gains read beside a kink, then fade with the spacing; a corner that no unit accounts for
stays.
"""

import copy
import warnings

import torch

__all__ = ["look_closer"]

#: Samples of each round, over an interval with a third of its width on either side: about a tenth each time.
_SAMPLES = 17
_BEFORE, _BEHIND = 0.31, 0.34
#: Rounds go on down to this part of the first interval.
_FINEST = 1e-6
#: A rest that has come down to this part of the first was smooth.
_SMOOTH = 5e-3
#: Smallest rest, as a part of the steepest slope, that is worth a look, and above rounding.
_LEAST = {torch.float64: 1e-4, torch.float32: 1e-2}


def look_closer(run, parts: list, steepest: torch.Tensor, size: int) -> None:
    """Warn, in a sentence, of a jump of the slope that no unit accounts for.

    Parameters
    ----------
    run
        The `Measurement`.
    parts
        Its `Part` of every chunk, with the largest rest of each.
    steepest
        ``(m,)`` the largest magnitude of each output's slope.
    size
        Samples that fit at once.
    """
    worst = torch.stack([part.worst[0] for part in parts]) / steepest.clamp_min(1e-300)
    place = int(worst.argmax())
    least = _LEAST.get(run.dtype, 1e-1)
    if float(worst.flatten()[place]) > least:
        chunk, output = divmod(place, worst.shape[1])
        rest, interval = (found[output] for found in parts[chunk].worst)
        _warn_of_corner(run, parts[chunk].start + int(interval), output, float(rest), min(max(size, 5), _SAMPLES),
                        least * float(steepest[output]))


def _warn_of_corner(run, interval: int, output: int, rest: float, samples: int, least: float) -> None:
    """Warn where a corner is left, however finely the interval is sampled."""
    ends = run.times[0], run.times[-1]
    left, right = run.times[interval], run.times[interval + 1]
    rests, begun = [rest], right - left
    finest = max(_FINEST, float(1e3 * torch.finfo(run.dtype).eps / begun))
    while right - left > finest * begun:
        # Beyond both ends, for a switch on a sample may be seen on either side of it.
        width = right - left
        window = torch.stack([left - _BEFORE * width, right + _BEHIND * width]).clamp(*ends)
        times = torch.lerp(*window, torch.linspace(0, 1, samples, dtype=window.dtype, device=window.device))
        closer = copy.copy(run)
        closer.times = times
        try:
            part = closer.part(0, samples, whole=False)
        except Exception:
            # Nothing more can be said where a finer path fails, as one that knows some moments only does: this is
            # a second look, not the measurement.
            return
        size, place = (found[output] for found in part.worst)
        left, right = times[int(place)], times[int(place) + 1]
        rests.append(float(size))
        if rests[-1] < max(_SMOOTH * rest, least):
            return
    # What lies at the path's own end has nothing beyond it to bend to.
    stays = len(rests) > 2 and rests[-1] > 0.5 * rests[-2] > 0.25 * rests[-3]
    if not stays or left == ends[0] or right == ends[1]:
        return
    warnings.warn(f"at t = {float(left):.9g} the slope of output {output} jumps by {rests[-1]:.3g}, and no unit that "
                  "is followed accounts for it, so that the total misses it: something else has a corner there "
                  "(a square root of a square, a number times its sign): write it with abs, relu or maximum, or "
                  "measure with smp from samples", stacklevel=4)
