"""The creases of a piecewise-linear model in a plane of its inputs, where traced lines of two directions meet them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smpcore.arguments import check, whole
from smpcore.tracing.trace import Tracer, valid_ends

__all__ = ["PlaneTrace", "trace_plane"]

# Between a line and its twin, as a part of the plane's side: far above rounding, far below the creases' distances.
_TWIN = 1e-6


@dataclass(frozen=True)
class PlaneTrace:
    """Where the lines of a grid cross the creases of a model's outputs.

    Attributes
    ----------
    points
        ``(K, 2)``: each crossing, (p, q) in [0, 1]², at the input corner + p u + q v.
    ways
        ``(K,)``: 0 for a crossing on a line along u, 1 on one along v.
    leans
        ``(K,)``: how far the crease moves along the line for each unit at right angles to it, exact up to rounding at
        the crossing; NaN where another crease is too near to tell.
    jumps
        ``(K, m)``: by how much the slopes along the line jump, in output units per side of the plane.
    layers
        K names, as `LineTrace.layers`.
    certified
        Whether no crossing with any of the lines is missing. Of what lies between the lines nothing is said.
    gaps
        ``(way, offset, t0, t1, reason)`` of every stretch of a line that is not certified.
    lines
        How many lines of each way, at offsets (k + ½)/lines.
    """

    points: Tensor
    ways: Tensor
    leans: Tensor
    jumps: Tensor
    layers: list[str]
    certified: bool
    gaps: list[tuple[int, float, float, float, str]]
    lines: int

    def segments(self) -> tuple[Tensor, Tensor]:
        """Straight pieces of the creases, to draw: both ends ``(S, 2, 2)``, and which crossing each is ``(S,)``.

        Each crease is drawn from the lines that it crosses at more than 45°, half their distance to either side.
        """
        chosen = (self.leans.abs() <= 1).nonzero()[:, 0]
        reach = torch.stack([self.leans[chosen], torch.ones_like(self.leans[chosen])], 1) / (2 * self.lines)
        reach = torch.where((self.ways[chosen] == 1)[:, None], reach.flip(1), reach)
        return torch.stack([self.points[chosen] - reach, self.points[chosen] + reach], 1), chosen


def trace_plane(model: Callable, corner: Tensor, u: Tensor, v: Tensor, *, lines: int = 60,
                outputs: Sequence[int] | Callable | None = None, dtype: torch.dtype = torch.float64) -> PlaneTrace:
    """Every crossing of a grid of lines with the creases of ``model`` in the plane corner + p u + q v, p, q in [0, 1].

    Parameters
    ----------
    model, outputs, dtype
        As for `trace_line`.
    corner, u, v
        ``(*input_shape)``: one corner of the plane, and its two sides.
    lines
        How many lines along each side. Each is traced twice, a millionth of a side apart, which shows how the creases
        lean.

    Returns
    -------
    PlaneTrace

    Raises
    ------
    TypeError, ValueError
        As for `trace_line`.

    Notes
    -----
    A stack of lines serves every model that `trace_line` follows. Cutting polygons is exact in the whole plane
    (`smpcore.experiments.plane_regions`), yet its work grows with the number of regions, about half the square of
    the number of creases that a line meets (B. Hanin, D. Rolnick, arXiv:1906.00904): half a million for the face
    network between two crops, where one line has a thousand.
    """
    check({"lines": lines}, {"lines": whole()})
    for side in (u, v):
        valid_ends(corner, side)
    tracer = Tracer(model, outputs, dtype)
    found, names, gaps = [], [], []
    for way, (along, across) in enumerate(((u, v), (v, u))):
        for offset in ((torch.arange(lines) + 0.5) / lines).tolist():
            here, twin = (tracer.trace(start, start + along) for start in (
                corner + (offset + shift) * across for shift in (0.0, _TWIN)))
            gaps += [(way, offset, *gap) for gap in here.gaps]
            names += here.layers
            place = here.times.new_full((len(here.times),), offset)
            points = torch.stack([here.times, place] if way == 0 else [place, here.times], 1)
            found.append((points, torch.full_like(place, way), _leans(here, twin), here.jumps))
    points, ways, leans, jumps = (torch.cat(parts) for parts in zip(*found, strict=True))
    return PlaneTrace(points, ways.long(), leans, jumps, names, not gaps, gaps, lines)


def _leans(here, twin) -> Tensor:
    """How far each kink of a line is from the same kink of its twin, over the twin's distance; NaN where unclear."""
    found = here.times.new_full((len(here.times),), torch.nan)
    if not len(here.times) or not len(twin.times):
        return found
    # The same kink has the same layer and the same jump, and is the nearest of those on either side.
    right = torch.searchsorted(twin.times, here.times)
    near = torch.stack([(right + step).clamp(0, len(twin.times) - 1) for step in (-2, -1, 0, 1)], 1)
    same = torch.tensor([[twin.layers[k] == name for k in row] for row, name in
                         zip(near.tolist(), here.layers, strict=True)], device=near.device)
    off = (twin.jumps[near] - here.jumps[:, None]).abs().amax(-1) / here.jumps.abs().amax(1)[:, None]
    off = off.masked_fill(~same, torch.inf)
    least, best = off.min(1)
    nearest = near.gather(1, best[:, None])[:, 0]
    clear = least < 1e-3
    found[clear] = (twin.times[nearest[clear]] - here.times[clear]) / _TWIN
    return found
