"""A straight line cut into the pieces on which every tensor is straight: the bookkeeping behind `trace_line`.

A tensor that depends on the line is known through its value at the stretch's left end and one tangent (its
slope in t) for each piece. The values at all other knots follow by adding up tangents times lengths, which is
why a layer that is affine costs one row of work for each piece, and not two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smpcore.inspection.module_scope import CallNames, Scope

__all__ = ["Line", "NothingLeft", "Record", "Rows", "TooManyPieces", "each"]

# A stretch of which less than this part is outside gaps is one gap: what follows is not worth following.
_LEFT = 1e-3


class TooManyPieces(Exception):
    """The stretch has more pieces than fit the memory set aside: take a shorter one."""


class NothingLeft(Exception):
    """The whole stretch is a gap: whatever the model does next, no kink of it is counted."""


@dataclass
class Rows:
    """What one tensor of shape ``(*shape)`` does on the pieces of a stretch.

    Attributes
    ----------
    version
        How many cuts of the line it knows of; `Line.bring` catches up.
    first
        ``(*shape)``: its value at the stretch's left end.
    tangents
        ``(n, *shape)``: its slope on each piece. None for what has no slope (a mask, an index).
    values
        ``(n, *shape)``: its value at each piece's left knot. None where these follow from the tangents,
        which they do unless the tensor jumps.
    before
        The rows that went into a ReLU which still waits for its first reader, and the ReLU's layer.
    """

    version: int
    first: Tensor
    tangents: Tensor | None
    values: Tensor | None = None
    before: "tuple[Rows, int] | None" = None


def each(numbers: Tensor, rows: Tensor) -> Tensor:
    """One number for each piece, ``(n,)``, shaped and typed to multiply ``rows (n, *shape)``."""
    return numbers.to(rows.dtype).reshape(-1, *[1] * (rows.dim() - 1))


@dataclass
class Line:
    """The pieces of one stretch of a line, as known so far.

    Attributes
    ----------
    knots
        ``(n + 1,)`` float64, times at which pieces begin and end, the stretch's ends included.
    makers
        ``(n + 1,)``: the number of the layer that made each knot, -1 at the ends.
    closest
        Knots nearer to each other than this are one: the number type cannot part them.
    """

    knots: Tensor
    closest: float
    makers: Tensor = None
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (knots before a cut, parent of each)

    def __post_init__(self):
        self.makers = torch.full(self.knots.shape, -1, device=self.knots.device)

    @property
    def version(self) -> int:
        return len(self.history)

    @property
    def lengths(self) -> Tensor:
        """``(n,)``: how long each piece is."""
        return self.knots.diff()

    @property
    def count(self) -> int:
        return len(self.knots) - 1

    def cut(self, times: Tensor, layer: int | Tensor, room: int) -> Tensor | None:
        """Cut pieces at ``times (k,)``, in any order, where a unit of ``layer``, one or ``(k,)``, switches.

        Returns
        -------
        Tensor
            ``(n,)``: which of the pieces before each piece is now a part of; None where nothing was cut.

        Raises
        ------
        TooManyPieces
            Where there would be more than ``room`` pieces.
        """
        # An isolated crossing of two units is exact to about 1e-15; what lies nearer than `closest` to a knot
        # is that knot's own event, seen again through rounding.
        if not times.numel():
            return None
        times, order = times.sort()
        layer = torch.as_tensor(layer, device=times.device).expand(len(order))[order]
        place = torch.searchsorted(self.knots, times).clamp(1, len(self.knots) - 1)
        near = torch.minimum((times - self.knots[place - 1]).abs(), (self.knots[place] - times).abs())
        times, layer = times[near > self.closest], layer[near > self.closest]
        if not len(times):
            return None
        apart = torch.ones_like(times, dtype=torch.bool)
        apart[1:] = times.diff() > self.closest
        times, layer = times[apart], layer[apart]
        # At least 2, however wide the layer: a stretch can only be shortened to what holds one cut.
        if self.count + len(times) > max(room, 2):
            raise TooManyPieces(self.count + len(times), max(room, 2))
        knots, order = torch.cat([self.knots, times]).sort()
        makers = torch.cat([self.makers, layer.to(self.makers.dtype)])[order]
        middles = (knots[1:] + knots[:-1]) / 2
        parents = (torch.searchsorted(self.knots, middles, right=True) - 1).clamp(0, self.count - 1)
        self.history.append((self.knots, parents))
        self.knots, self.makers = knots, makers
        return parents

    def bring(self, rows: Rows) -> Rows:
        """The rows on the pieces as they are now: a part keeps its whole's tangent and shifts its value."""
        if rows.version == self.version:
            return rows
        knots, parents = self.history[rows.version]
        for _, later in self.history[rows.version + 1:]:
            parents = parents[later]
        tangents = None if rows.tangents is None else rows.tangents[parents]
        values = rows.values
        if values is not None:
            values = values[parents]
            if tangents is not None:
                values = values + each(self.knots[:-1] - knots[:-1][parents], values) * tangents
        return Rows(self.version, rows.first, tangents, values)

    def constant(self, tensor: Tensor) -> Rows:
        """The rows of a tensor that does not depend on the line."""
        return Rows(self.version, tensor, torch.zeros_like(tensor).expand(self.count, *tensor.shape))

    def ends(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """``(n, *shape)`` each: values at both ends of every piece, of rows that are up to date."""
        if rows.values is None:
            # One piece ends where the next begins, so both are views of the values at all knots.
            steps = torch.empty(self.count + 1, *rows.first.shape, dtype=rows.tangents.dtype,
                                device=rows.tangents.device)
            steps[0] = rows.first
            # Values and knots are held fixed where a gradient is taken: only tangents carry it.
            torch.mul(rows.tangents.detach(), each(self.lengths, rows.tangents), out=steps[1:])
            steps = torch.cumsum(steps, 0)
            return steps[:-1], steps[1:]
        if rows.tangents is None:
            return rows.values, rows.values
        return rows.values, torch.addcmul(rows.values, each(self.lengths, rows.values), rows.tangents.detach())

    def at(self, rows: Rows, fraction: float) -> Tensor:
        """``(n, *shape)``: values a fraction of each piece past its left knot."""
        values = self.ends(rows)[0]
        if rows.tangents is None:
            return values
        return torch.addcmul(values, each(self.lengths * fraction, values), rows.tangents.detach())


@dataclass
class Record:
    """What is found while a model is followed along one stretch.

    Attributes
    ----------
    line
        The pieces.
    scope
        Says which module is running.
    tolerance
        By what part of their size numbers may differ from a straight line's through rounding.
    widths
        ``widths[k]``: the most numbers that a tensor from unit k on holds on one piece, known from an earlier
        stretch; with ``room``, the numbers that a tensor may hold, it bounds the pieces.
    layers
        Names of the calls that can switch, ``module.path:op``, in order of execution.
    sizes
        ``(units before it, its numbers on one piece)`` of each tensor.
    gaps
        ``(left, right, reason)`` of stretches in which some operation was not straight.
    """

    line: Line
    scope: Scope
    tolerance: float
    widths: Sequence[int] = ()
    room: int = 1 << 62
    layers: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[float, float, str]] = field(default_factory=list)
    names: CallNames = field(default_factory=CallNames)

    def layer(self, op: str, numbers: int) -> int:
        """The number of a new call that can switch, whose input has so many numbers."""
        self.sizes.append((len(self.layers) + 1, numbers))
        self.layers.append(self.names.new(self.scope.path, op))
        return len(self.layers) - 1

    def cut(self, piece: Tensor, fraction: Tensor, layer: int | Tensor) -> Tensor | None:
        """Cut ``piece (k,)`` at ``fraction (k,)`` of its length, where a unit of ``layer`` switches, as `Line.cut`."""
        number = int(layer if isinstance(layer, int) else layer.max()) if piece.numel() else 0
        room = self.room // max(1, self.widths[number] if number < len(self.widths) else 1)
        knots = self.line.knots
        return self.line.cut(knots[piece] + fraction.to(knots.dtype) * self.line.lengths[piece], layer, room)

    def gap(self, reason: str, pieces: Tensor | None = None) -> None:
        """Pieces are a gap where any of their numbers in ``(n, ...)`` bool is true; all where it is None.

        Raises
        ------
        NothingLeft
            Where gaps now cover the stretch.
        """
        knots = self.line.knots
        pieces = slice(None) if pieces is None else pieces.reshape(len(pieces), -1).any(1)
        found = torch.stack([knots[:-1][pieces], knots[1:][pieces]], 1)
        if not len(found):
            return
        self.gaps += [(left, right, f"{self.scope.path}: {reason}") for left, right in found.tolist()]
        left, right = torch.tensor([gap[:2] for gap in self.gaps], dtype=torch.float64).sort(0).values.T
        # Sorted apart, the k-th left end and the one but k-th right end enclose what no gap covers.
        begin, stop = float(knots[0]), float(knots[-1])
        bare = float((left[1:] - right[:-1]).clamp_min(0).sum() + left[0] - right[-1]) + stop - begin
        if bare < _LEFT * (stop - begin):
            raise NothingLeft
