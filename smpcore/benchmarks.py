"""What the measurements are compared with: timing in turns, fine sampling, a line carried through exactly.

None of this is needed to measure SMP. The notebook of benchmarks imports it, so that each alternative is
written once, as well as it can be written in plain torch, and checked by a test to be right.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["LineKinks", "finely_sampled_smp", "in_turns", "transform_line"]

# Two switch points of a line closer than this, as a fraction of it, are one: float64 cannot part them.
_SAME = 1e-13


def in_turns(work: dict[str, Callable[[], object]], repeats: int = 3) -> dict[str, float]:
    """Seconds that each piece of work takes, measured in turns so that a drift of the machine hits all alike.

    Parameters
    ----------
    work
        Named callables. Each is called once before the counted rounds, so that caches and lazy initialisation
        are not counted.
    repeats
        Counted rounds, at least 1; in every round each callable runs once.

    Returns
    -------
    dict
        The fastest of each one's rounds: other programs only ever make a round slower.

    Raises
    ------
    ValueError
        For fewer than one round.
    """
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}: at least one round has to be counted")
    seconds = dict.fromkeys(work, float("inf"))
    for counted in range(repeats + 1):
        for name, call in work.items():
            _wait()
            begin = time.perf_counter()
            call()
            _wait()
            if counted:
                seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return seconds


def finely_sampled_smp(
    model: nn.Sequential, start: Tensor, end: Tensor, samples: int, chunk: int = 64
) -> float:
    """Σ|slope differences| of the first output between equally spaced points of the line, length 1.

    A lower bound of SMP: kinks that share an interval cancel. It grows to SMP as the interval shrinks.

    Parameters
    ----------
    model
        As for `transform_line`.
    start, end
        The line's ends, ``(*input_shape)``.
    samples
        Points on it, at least 2.
    chunk
        Points in one forward pass.
    """
    times = torch.linspace(0, 1, samples, dtype=start.dtype, device=start.device)
    with torch.no_grad():
        slopes = torch.cat([_slopes(model, start, end, part) for part in times.split(chunk)])
    return float(slopes.diff().abs().sum())


@dataclass(frozen=True)
class LineKinks:
    """What `transform_line` finds: ``times (K,)`` in [0, 1], ``jumps (K,)`` of the first output's slope, and
    ``rows``, the points of the line that the last layer was evaluated at."""

    times: Tensor
    jumps: Tensor
    rows: int

    @property
    def smp(self) -> float:
        """Σ|jumps|, output units per unit of the line."""
        return float(self.jumps.abs().sum())


def transform_line(model: nn.Sequential, start: Tensor, end: Tensor, *, parts: int = 1) -> LineKinks:
    """Every kink of a ReLU and max-pool network on a line, by carrying the switch points layer by layer.

    The idea is that of M. Sotoudeh and A. Thakur, "Computing Linear Restrictions of Neural Networks" (NeurIPS
    2019): between two neighbouring switch points everything so far is linear, so the next layer's switch
    points are found from the values at the two ends, and new rows are interpolated instead of computed again.
    Slopes are then taken by forward-mode AD in the middle of each piece.

    Parameters
    ----------
    model
        A flat sequence of `nn.Conv2d`, `nn.Linear`, `nn.ReLU`, `nn.MaxPool2d` (without padding or
        dilation) and `nn.Flatten`.
    start, end
        The line's ends, ``(*input_shape)``, float64.
    parts
        Stretches that the line is cut into: more of them need less memory at once.

    Returns
    -------
    LineKinks
        Kinks whose jump stands out of rounding (1e-9 of the largest).
    """
    edges = torch.linspace(0, 1, parts + 1, dtype=start.dtype, device=start.device)
    with torch.no_grad():
        found = [_switch_points(model, start, end, edge) for edge in itertools.pairwise(edges)]
        times = torch.cat([found[0][:1], *[part[1:] for part in found]])
        middles = (times[1:] + times[:-1]) / 2
        slopes = torch.cat([_slopes(model, start, end, part) for part in middles.split(64)])
    jumps = slopes.diff()
    seen = jumps.abs() > 1e-9 * jumps.abs().max() if len(jumps) else jumps > 0
    return LineKinks(times[1:-1][seen], jumps[seen], len(times))


def _switch_points(model: nn.Sequential, start: Tensor, end: Tensor, edges: tuple[Tensor, Tensor]) -> Tensor:
    times = torch.stack(edges)
    rows = _points(start, end, times)
    layers, before = list(model), None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.ReLU):
            # A ReLU in front of a pool is one unit with it, the winner or zero: most of its own switches are
            # of inputs that do not win.
            if not isinstance(following, nn.MaxPool2d):
                times, rows = _insert(times, rows, _zero_crossings(rows))
        elif isinstance(layer, nn.MaxPool2d):
            behind_relu = isinstance(before, nn.ReLU)
            times, rows = _insert(times, rows, _winner_changes(rows, layer, behind_relu))
            rows = rows.clamp_min(0) if behind_relu else rows
        rows = rows if isinstance(layer, nn.ReLU) and isinstance(following, nn.MaxPool2d) else layer(rows)
        before = layer
    return times


def _insert(times: Tensor, rows: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Rows at the switch points found, (segment, fraction of it), interpolated between the segment's ends."""
    segment, fraction = found
    new = times[segment] + fraction * (times[segment + 1] - times[segment])
    order = new.argsort()
    new, segment = new[order], segment[order]
    apart = torch.ones_like(new, dtype=torch.bool)
    apart[1:] = new.diff() > _SAME
    apart &= (new - times[segment] > _SAME) & (times[segment + 1] - new > _SAME)
    new, segment = new[apart], segment[apart]
    weight = (new - times[segment]) / (times[segment + 1] - times[segment])
    between = torch.lerp(rows[segment], rows[segment + 1], weight.reshape(-1, *[1] * (rows.dim() - 1)))
    everything = torch.cat([times, new])
    order = everything.argsort()
    return everything[order], torch.cat([rows, between])[order]


def _zero_crossings(rows: Tensor) -> tuple[Tensor, Tensor]:
    flat = rows.flatten(1)
    segment, unit = ((flat[1:] > 0) != (flat[:-1] > 0)).nonzero(as_tuple=True)
    left, right = flat[segment, unit], flat[segment + 1, unit]
    return segment, left / (left - right)


def _winner_changes(rows: Tensor, pool: nn.MaxPool2d, or_zero: bool) -> tuple[Tensor, Tensor]:
    """The corners of the upper envelope of each window's lines, by walking from winner to winner."""
    windows = _unfold(rows, pool)
    if or_zero:
        windows = nn.functional.pad(windows, (0, 1))
    left, right = windows[:-1], windows[1:]
    # Where a line is the largest of several is an interval, so equal winners at both ends mean no change.
    segment, place = (left.argmax(-1) != right.argmax(-1)).nonzero(as_tuple=True)
    left, right = left[segment, place], right[segment, place]
    slope = right - left
    # At the left end the winner is the largest, and of equal ones the steepest: it is ahead right after.
    best = left.amax(-1, keepdim=True)
    winner = torch.where(left == best, slope, -torch.inf).argmax(-1)
    now = torch.zeros(len(segment), dtype=rows.dtype, device=rows.device)
    segments, fractions = [], []
    while len(segment):
        index = winner[:, None]
        lead, pace = left.gather(1, index) - left, slope - slope.gather(1, index)
        # Only a steeper line can overtake; of those that meet the winner first, the steepest wins next.
        meet = torch.where(pace > 0, lead / pace, torch.inf).clamp_min(now[:, None])
        first = meet.amin(1)
        winner = torch.where(meet == first[:, None], slope, -torch.inf).argmax(1)
        on = first < 1
        segment, left, slope, winner, now = segment[on], left[on], slope[on], winner[on], first[on]
        segments.append(segment)
        fractions.append(now)
    if not segments:
        return segment, now
    return torch.cat(segments), torch.cat(fractions)


def _unfold(rows: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """(rows, windows, window size): what each window of a pool without padding or dilation sees."""
    size = pool.kernel_size if isinstance(pool.kernel_size, tuple) else (pool.kernel_size,) * 2
    step = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,) * 2
    windows = rows.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])
    return windows.flatten(4).flatten(1, 3)


def _points(start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    return start + times.reshape(-1, *[1] * start.dim()) * (end - start)


def _slopes(model: nn.Sequential, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    """Slopes of the first output, the tangent carried by hand: forward-mode AD would convolve three times."""
    points, slopes = _points(start, end, times), (end - start).expand(len(times), *start.shape)
    for layer in model:
        if isinstance(layer, nn.ReLU):
            slopes, points = slopes * (points > 0), layer(points)
        elif isinstance(layer, nn.MaxPool2d):
            points, index = nn.functional.max_pool2d(
                points, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                ceil_mode=layer.ceil_mode, return_indices=True)
            slopes = slopes.flatten(2).gather(2, index.flatten(2)).view_as(points)
        elif isinstance(layer, nn.Conv2d):
            points = layer(points)
            slopes = nn.functional.conv2d(
                slopes, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        elif isinstance(layer, nn.Linear):
            points, slopes = layer(points), slopes @ layer.weight.T
        else:
            points, slopes = layer(points), layer(slopes)
    return slopes[:, 0]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
