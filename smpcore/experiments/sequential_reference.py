"""Every kink of a network on a line, computed exactly layer by layer: the reference that tracing is compared with.

It handles a flat sequence of five kinds of layer and nothing else, and is vectorised as well as plain torch allows;
`smpcore.benchmarks` contains it.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smpcore.arguments import TENSOR, Kind, checked, whole

__all__ = ["SEQUENCE", "LineKinks", "slopes", "transform_line"]

# Two switch points of a line closer than this, as a fraction of it, are one: float64 cannot separate them.
_SAME = 1e-13


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.MaxPool2d):
        return (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
    plain = getattr(layer, "padding_mode", "zeros") == "zeros"
    return plain and type(layer) in (nn.Conv2d, nn.Linear, nn.ReLU, nn.Flatten)


#: A model that the rules of this file hold for.
SEQUENCE = Kind(nn.Sequential, ": it must be an nn.Sequential of single layers",
                lambda model: all(_is_known(layer) for layer in model),
                ": each of its layers must be a Conv2d (zeros), Linear, ReLU, MaxPool2d (without padding, dilation or "
                "ceil_mode) or Flatten")


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


@checked(model=SEQUENCE, start=TENSOR, end=TENSOR, parts=whole())
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

    Raises
    ------
    TypeError, ValueError
        For another model, ends that are not two floating tensors of one shape, fewer than one part.
    """
    edges = torch.linspace(0, 1, parts + 1, dtype=start.dtype, device=start.device)
    with torch.no_grad():
        found = [_switch_points(model, start, end, edge) for edge in itertools.pairwise(edges)]
        times = torch.cat([found[0][:1], *[part[1:] for part in found]])
        middles = (times[1:] + times[:-1]) / 2
        jumps = torch.cat([slopes(model, start, end, part) for part in middles.split(64)]).diff()
    seen = jumps.abs() > 1e-9 * jumps.abs().max() if len(jumps) else jumps > 0
    return LineKinks(times[1:-1][seen], jumps[seen], len(times))


def _switch_points(model: nn.Sequential, start: Tensor, end: Tensor, edges: tuple[Tensor, Tensor]) -> Tensor:
    times = torch.stack(edges)
    rows = _points(start, end, times)
    layers, before = list(model), None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.ReLU):
            # A ReLU in front of a pool and the pool are one unit, the winner or zero: most switches of the ReLU are of
            # inputs that do not win.
            if not isinstance(following, nn.MaxPool2d):
                times, rows = _insert(times, rows, _zero_crossings(rows))
        elif isinstance(layer, nn.MaxPool2d):
            behind_relu = isinstance(before, nn.ReLU)
            times, rows = _insert(times, rows, _winner_changes(rows, layer, behind_relu))
            rows = rows.clamp_min(0) if behind_relu else rows
        rows = rows if isinstance(layer, nn.ReLU) and isinstance(following, nn.MaxPool2d) else layer(rows)
        before = layer
    return times


def _points(start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    if start.shape != end.shape:
        raise ValueError(f"start {tuple(start.shape)} and end {tuple(end.shape)} differ in shape")
    return start + times.reshape(-1, *[1] * start.dim()) * (end - start)


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
        # Only a steeper line can become the largest; of those that meet the winner first, the steepest wins next.
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
    """(rows, windows, window size): the inputs of each window of a pool without padding or dilation."""
    size = pool.kernel_size if isinstance(pool.kernel_size, tuple) else (pool.kernel_size,) * 2
    step = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,) * 2
    windows = rows.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])
    return windows.flatten(4).flatten(1, 3)


def slopes(model: nn.Sequential, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    """Slopes ``(P,)`` of the first output, the tangent carried by hand: forward-mode AD would convolve three times."""
    rows = _points(start, end, times)
    rates = (end - start).expand_as(rows)
    for layer in model:
        if isinstance(layer, nn.ReLU):
            rates, rows = rates * (rows > 0), layer(rows)
        elif isinstance(layer, nn.MaxPool2d):
            rows, index = nn.functional.max_pool2d(
                rows, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                ceil_mode=layer.ceil_mode, return_indices=True)
            rates = rates.flatten(2).gather(2, index.flatten(2)).view_as(rows)
        elif isinstance(layer, nn.Conv2d):
            rows = layer(rows)
            rates = nn.functional.conv2d(
                rates, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        elif isinstance(layer, nn.Linear):
            rows, rates = layer(rows), rates @ layer.weight.T
        else:
            rows, rates = layer(rows), layer(rates)
    return rates[:, 0]
