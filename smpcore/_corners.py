"""Where a piecewise-linear unit switches inside a piece: crossings of thresholds, corners of an envelope."""

import torch
from torch import Tensor

__all__ = ["crossings", "envelope_corners", "zero_or"]


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
