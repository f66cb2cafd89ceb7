# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""How each piecewise-linear unit is carried along: where it cuts the line, and which tangents go on."""

import copy

import torch
from torch import Tensor

from smpcore.inspection.operations import ON_NO_SIDE
from smpcore.inspection.refusals import refusal, sentence
from smpcore.tracing.piecewise import Record, Rows, each
from smpcore.tracing.straight_ops import LineCall
from smpcore.units.table import TABLE, UNFOLLOWED, Hinges, Selection, Steps

__all__ = ["crossings", "envelope_corners", "follow", "settle", "settled", "zero_or"]


#: Between two numbers that are straight, at most one change on each piece, where they are equal.
_COMPARISONS = frozenset("gt lt ge le eq ne greater less greater_equal less_equal not_equal".split())
#: Functions of one number that only rise or only fall: alike at both ends of a piece, they are so all along it.
_MONOTONE = frozenset("signbit logical_not bool long int short floor_divide floordiv isposinf isneginf bucketize "
                      "searchsorted".split())


def follow(record: Record, run: LineCall, inputs: list[Rows]) -> list[Rows] | None:
    """Rows of a unit's outputs; None for a call that is not a unit of the table.

    Parameters
    ----------
    inputs
        Rows of the tensors in ``run.places``, as they stand: not brought up to date, perhaps of a ReLU that waits.

    Raises
    ------
    NothingLeft
        Where the call switches and is not followed, so that the whole stretch is a gap.
    """
    name, alone = run.word, run.places == [0]
    advice = UNFOLLOWED.get(run.op)
    if advice is None and name not in TABLE and name not in ON_NO_SIDE and not run.floating():
        advice = UNFOLLOWED["gt"]
    if advice and any(rows.tangents is not None for rows in inputs):
        if name in _COMPARISONS and len(run.leaves) == 2 and not run.overwrites:
            return [_compare(record, run, inputs)]
        if not (alone and name in _MONOTONE):
            record.gap(sentence("switches", op=name, advice=advice))
    if name not in TABLE:
        return None
    unit = run.describe() if alone or name not in ("clamp", "prelu") else None
    if isinstance(unit, Hinges) and alone and unit.straight and not unit.jumps:
        return [_bend(record, run, unit, inputs[0])]
    if isinstance(unit, Steps) and not run.overwrites and alone:
        # Torch's own may lack a derivative, which is 0 wherever there is one.
        run.func = lambda *_, **__: unit.output(_[0] if _ else next(iter(__.values())))
    if isinstance(unit, Selection) and (alone or len(unit.inputs) > 1):
        rows = {id(run.leaves[place]): part for place, part in zip(run.places, inputs, strict=True)}
        return _select(record, run, unit, [
            rows[id(part)] if id(part) in rows else record.line.constant(part) for part in unit.inputs])
    return None


def settle(record: Record, rows: Rows) -> Rows:
    """Rows brought up to date, in place, so that all who hold them are; a ReLU that waited is carried out."""
    line = record.line
    if rows.before is None:
        found = line.bring(rows)
    else:
        before, layer = settle(record, rows.before[0]), rows.before[1]
        knots, (left, right) = line.knots, line.ends(before)
        parents = record.cut(*crossings(left, right), layer)
        parents = slice(None) if parents is None else parents
        since = (line.knots[1:] + line.knots[:-1]) / 2 - knots[:-1][parents]
        tangents = before.tangents[parents]
        middle = torch.addcmul(left[parents], each(since, left), tangents)
        found = Rows(line.version, rows.first, tangents * (middle > 0))
    vars(rows).update(vars(found))
    return rows


def settled(record: Record, rows: list[Rows]) -> list[Rows]:
    """The same for several: settling one may cut the line for all."""
    for part in rows:
        settle(record, part)
    return [settle(record, part) for part in rows]


def _compare(record: Record, run: LineCall, inputs: list[Rows]) -> Rows:
    """A comparison of two: a gap where it changes inside a piece."""
    line = record.line
    ends = [line.ends(rows) for rows in settled(record, inputs)]
    difference = copy.copy(run)
    difference.func = torch.sub
    left, right = (difference.over(side) for side in zip(*ends, strict=True))
    rounding = 1e-3 * record.tolerance * max(float(part.abs().amax()) for side in ends for part in side if part.numel())
    changes = ((left > rounding) & (right < -rounding)) | ((left < -rounding) & (right > rounding))
    record.gap(sentence("changes", op=run.word), changes)
    return Rows(line.version, run.result, None, run.over([line.at(rows, 0.5) for rows in inputs]))


def _bend(record: Record, run: LineCall, unit: Hinges, rows: Rows) -> Rows:
    line, rows, layer = record.line, settle(record, rows), record.layer(run.word, rows.first.numel())
    if run.word == "relu" and rows.tangents is not None and rows.values is None and not run.overwrites:
        # It waits: a pool that reads it first, and alone, makes one unit with it.
        return Rows(rows.version, None, rows.tangents, None, (rows, layer))
    if rows.tangents is None:
        raise refusal("whole numbers", record.layers[layer])
    for hinge in unit.hinges:
        left, right = line.ends(rows)
        record.cut(*crossings(left - hinge.at, right - hinge.at), layer)
        rows = line.bring(rows)
    middle = line.at(rows, 0.5)
    tangents = rows.tangents * unit.derivative(middle)
    values = None
    if rows.values is not None:
        middle = torch.func.vmap(unit.output)(middle)
        values = middle - each(line.lengths * 0.5, middle) * tangents
    return Rows(line.version, None, tangents, values)


def _select(record: Record, run: LineCall, selection: Selection, inputs: list[Rows]) -> list[Rows]:
    line, fused = record.line, None
    if len(inputs) == 1 and inputs[0].before is not None and selection.sign == 1:
        # A ReLU that waits for this pool is one unit with it.
        before, fused = inputs[0].before
        inputs = [before]
    inputs = settled(record, inputs)
    layer = record.layer(run.word, sum(rows.first.numel() for rows in inputs))
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
        parents = record.cut((row // count)[which], fraction, maker)
    # Also where nothing was cut: a corner on a knot that was there already decides which wins behind it.
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
    out = run.result
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
    """Write each corner's new winner into the pieces after it, ``first`` to ``stop``."""
    many = (stop - first).clamp_min(0)
    corner = torch.arange(len(many), device=many.device).repeat_interleave(many)
    behind = torch.arange(len(corner), device=many.device) - (many.cumsum(0) - many)[corner]
    place[(first[corner] + behind) * count + channel[corner], window[corner]] = winner[corner]


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
