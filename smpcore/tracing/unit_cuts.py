"""How each piecewise-linear unit is carried along: where it cuts the line, and which tangents go on."""

import torch
from torch import Tensor

from smpcore.tracing.piecewise import Rows, each
from smpcore.units.table import TABLE, UNFOLLOWED, Hinges, Selection, Steps, describe

__all__ = ["crossings", "envelope_corners", "follow", "zero_or"]


# What reorders floats: straight at some points of a piece proves nothing about those between.
_REORDERS = frozenset(UNFOLLOWED) - {
    name for name in UNFOLLOWED if UNFOLLOWED[name].startswith("a mask")} - {"argsort", "argmax", "argmin"}

def follow(carrier, run) -> list[Rows] | None:
    """Rows of a unit's outputs; None for a call that is not a unit of the table."""
    name = run.name
    if name in _REORDERS:
        carrier.whole_gap(f"{name}: {UNFOLLOWED[name]}")
        return None
    if name not in TABLE:
        return None
    unit = describe(name, *run.arguments()) if run.places == [0] or name not in ("clamp", "prelu") else None
    if isinstance(unit, Hinges) and run.places == [0] and unit.straight \
            and not any(torch.as_tensor(hinge.step).any() for hinge in unit.hinges):
        return _bend(carrier, run, unit)
    if isinstance(unit, Steps) and not run.in_place and run.places == [0]:
        # Torch's own may lack a derivative, which is 0 wherever there is one.
        run.func = lambda *_, **__: unit.output(_[0] if _ else next(iter(__.values())))
    if isinstance(unit, Selection) and (run.places == [0] or len(unit.inputs) > 1):
        return _select(carrier, run, unit)
    return None


def _bend(carrier, run, unit: Hinges) -> list[Rows]:
    tensor = run.leaves[0]
    layer = carrier.layer(run.name, tensor.numel())
    line = carrier.line
    rows = carrier.rows(tensor)
    if rows.tangents is None:
        raise ValueError(f"{carrier.layers[layer]} of a tensor that is not of a floating type")
    if run.name == "relu" and rows.values is None and not run.in_place:
        # It waits: a pool that reads it first, and alone, makes one unit with it.
        return [Rows(rows.version, None, rows.tangents, None, (rows, layer))]
    for hinge in unit.hinges:
        left, right = line.ends(rows)
        carrier.cut_only(*crossings(left - hinge.at, right - hinge.at), layer)
        rows = line.bring(rows)
    middle = line.at(rows, 0.5)
    slope = None
    for hinge in unit.hinges:
        below, above = (torch.as_tensor(side, dtype=middle.dtype, device=middle.device)
                        for side in (hinge.below, hinge.above))
        slope = torch.where(middle > hinge.at, above, below if slope is None else slope)
    tangents = rows.tangents if slope is None else rows.tangents * slope
    values = None
    if rows.values is not None:
        middle = unit.output(middle)
        values = middle - each(line.lengths * 0.5, middle) * tangents
    return [Rows(line.version, None, tangents, values)]


def _select(carrier, run, selection: Selection) -> list[Rows]:
    line, tensors = carrier.line, selection.inputs
    # A ReLU that waits for this pool is one unit with it.
    waiting = getattr(tensors[0], "_line_rows", None)
    carrier._fresh(tensors[0])
    fused = None
    if len(tensors) == 1 and waiting.before is not None and selection.sign == 1:
        fused = waiting.before[1]
        inputs = [line.bring(waiting.before[0])]
    else:
        inputs = [line.bring(rows) for rows in [_constant(carrier, tensor) for tensor in tensors]]
    layer = carrier.layer(run.name, sum(tensor.numel() for tensor in tensors))
    sign, table = selection.sign, selection.windows()
    explicit = any(rows.values is not None for rows in inputs)

    def arranged(parts):
        return selection.rows([part * sign if sign < 0 else part for part in parts])

    ends = [line.ends(rows) for rows in inputs]
    joined = not explicit and len(inputs) == 1
    if joined:
        # All knots in one go: the right end of a piece is the left end of the next.
        knots = arranged([ends[0][0].as_strided((line.count + 1, *ends[0][0].shape[1:]), ends[0][0].stride())])
        count = len(knots) // (line.count + 1)
        best, place = selection.best(knots)
        left, right, best, reached, place = knots[:-count], knots[count:], best[:-count], best[count:], \
            place[:-count]
    else:
        left, right = (arranged(list(side)) for side in zip(*ends, strict=True))
        count = len(left) // line.count
        best, place = selection.best(left)
        reached = selection.best(right)[0]
    followed = right.gather(1, place)
    if fused is not None:
        followed = followed * (best > 0)
        reached = reached.clamp_min(0)
        place = torch.where(best > 0, place, -1)
    row, window = (followed < reached).nonzero(as_tuple=True)
    columns = table[window]
    low, high = (side[row[:, None], columns.clamp_min(0)].masked_fill(columns < 0, -torch.inf)
                 for side in (left, right))
    if fused is not None:
        low, high = zero_or(low), zero_or(high)
        columns = torch.nn.functional.pad(columns, (0, 1), value=-1)
    winner, rounds = envelope_corners(low, high)
    place[row, window] = columns.gather(1, winner[:, None])[:, 0]
    tangents = arranged([rows.tangents for rows in inputs])
    before, parents = line.knots, None
    if any(len(part[0]) for part in rounds):
        which, fraction, old, new = (torch.cat(parts) for parts in zip(*rounds, strict=True))
        maker = torch.full_like(which, layer)
        if fused is not None:
            # A corner with zero is the ReLU's, one between two inputs the pool's.
            zero = columns.shape[1] - 1
            maker[(old == zero) | (new == zero)] = fused
        parents = carrier.cut_only((row // count)[which], fraction, maker)
    # Also where nothing was cut: a corner on a knot that was there already decides who wins behind it.
    parents = torch.arange(line.count, device=left.device) if parents is None else parents
    rows_in = (parents[:, None] * count + torch.arange(count, device=left.device)).flatten()
    place = place[rows_in]
    middles = (line.knots[1:] + line.knots[:-1]) / 2
    if rounds and len(rounds[0][0]):
        for which, fraction, _, new in rounds:
            piece = row[which] // count
            times = before[piece] + fraction.to(before.dtype) * (before[piece + 1] - before[piece])
            _set_from(place, row[which] % count, window[which], columns[which].gather(1, new[:, None])[:, 0],
                      torch.searchsorted(middles, times), torch.searchsorted(parents, piece, right=True), count)
    inside = place.clamp_min(0) + rows_in[:, None] * tangents.shape[1]
    tangents = tangents.take(inside)
    if fused is not None:
        tangents = tangents * (place >= 0)
    out = run.result()
    outs = [out] if isinstance(out, Tensor) else list(out)
    tangents = (tangents * sign if sign < 0 else tangents).reshape(-1, *outs[0].shape)
    values = None
    if explicit:
        middle = selection.best(arranged([line.at(line.bring(rows), 0.5) for rows in inputs]))[0]
        middle = (middle.clamp_min(0) if fused is not None else middle * sign).reshape(-1, *outs[0].shape)
        values = middle - each(line.lengths * 0.5, middle) * tangents
    found = [Rows(line.version, None, tangents, values)]
    if len(outs) == 2:
        found.append(Rows(line.version, None, None, place.clamp_min(0).reshape(-1, *outs[1].shape)))
    return found


def _set_from(place, channel, window, winner, first, stop, count) -> None:
    """Write each corner's new winner into the pieces behind it, ``first`` to ``stop``."""
    many = (stop - first).clamp_min(0)
    corner = torch.arange(len(many), device=many.device).repeat_interleave(many)
    behind = torch.arange(len(corner), device=many.device) - (many.cumsum(0) - many)[corner]
    place[(first[corner] + behind) * count + channel[corner], window[corner]] = winner[corner]


def _constant(carrier, tensor) -> Rows:
    """Rows of a tensor, also of one that does not depend on the line."""
    if getattr(tensor, "_line_rows", None) is not None:
        return carrier.rows(tensor)
    line = carrier.line
    return Rows(line.version, tensor, torch.zeros_like(tensor).expand(line.count, *tensor.shape))


def crossings(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Where straight units pass through 0 between their two ends.

    Parameters
    ----------
    left, right
        ``(n, ...)``: each unit's value at the two ends of each piece.

    Returns
    -------
    piece, fraction
        ``(k,)`` each: the piece, and how far along it. A unit that only touches 0 at an end does not cross.
    """
    left, right = left.flatten(1), right.flatten(1)
    piece, unit = ((left > 0) != (right > 0)).nonzero(as_tuple=True)
    start, stop = left[piece, unit], right[piece, unit]
    fraction = start / (start - stop)
    inside = (start != 0) & (stop != 0)
    return piece[inside], fraction[inside]


def envelope_corners(left: Tensor, right: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The corners of the upper envelope of each window's straight lines.

    Parameters
    ----------
    left, right
        ``(w, k)``: the k candidates at the two ends of each window's piece; -inf where there is none.

    Returns
    -------
    winner
        ``(w,)``: who wins right behind the left end; of equals there the steepest.
    corners
        Rounds of ``(window, fraction, before, after)``, ``(c,)`` each: the window, how far along its piece,
        and which candidates win before and after. A window's corners come in order, one a round.

    Notes
    -----
    Walk from winner to winner: a window can have up to k - 1 corners, not one.
    """
    best = left.amax(1)
    window = torch.arange(len(left), device=left.device)
    slope = torch.where(left == -torch.inf, 0.0, right - left)
    first_winner = winner = torch.where(left == best[:, None], slope, -torch.inf).argmax(-1)
    now = torch.zeros_like(best)
    found = []
    while len(window):
        index = winner[:, None]
        lead, pace = left.gather(1, index) - left, slope - slope.gather(1, index)
        # Only a steeper line can overtake; of those that meet the winner first, the steepest is next.
        meet = torch.where(pace > 0, lead / pace, torch.inf)
        meet = torch.maximum(meet, now[:, None])
        first = meet.amin(1)
        after = torch.where(meet == first[:, None], slope, -torch.inf).argmax(1)
        on = first < 1
        window, left, slope, now = window[on], left[on], slope[on], first[on]
        found.append((window, now, winner[on], after[on]))
        winner = after[on]
    return first_winner, found


def zero_or(windows: Tensor) -> Tensor:
    """One more candidate, zero, for the ReLU in front of a pool: together they are the winner or zero."""
    return torch.nn.functional.pad(windows, (0, 1))
