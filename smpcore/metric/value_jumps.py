"""Jumps of a sampled curve's value, where its slope and SMP are not defined.

A jump lies in one interval between samples and stays as high as samples grow dense, while everything continuous
shrinks with the spacing. So a jump is an interval's difference that exceeds its neighbours' by far.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.background_fit import taken, true_places
from smpcore.metric.checks import as_tensor, check_samples, largest, scaled
from smpcore.metric.kink_residual import blocks, robust_deviation

__all__ = ["ValueJumpWarning", "jump_share", "shares_of_jumps", "warn_of_jumps"]

# A jump's difference is this many times every other difference within _APART intervals …
_STEEP, _APART = 4.0, 3
# … and this many robust deviations of the second differences, so that noise and dense kinks are not taken for jumps.
_NOISE = 8.0
# Differences up to this many rounding errors of the largest value count as 0.
_LEVEL = 16
# `smp` warns where jumps are more than this share of the total variation.
_SHARE = 0.002


class ValueJumpWarning(UserWarning):
    """A signal jumps in value, so that its SMP is not defined and what is read depends on the spacing."""


def jump_share(signal: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """The share of a curve's total variation that is jumps of its value: 0 for a continuous curve, 1 for a staircase.

    Parameters
    ----------
    signal
        ``(..., N)``, evenly spaced in its last dimension, N at least 9.

    Returns
    -------
    Tensor or ndarray
        ``(...)`` in [0, 1], of the kind, device and floating type that came in: the sum of the jumps' magnitudes over
        Σ|Δz|, and 0 for a constant.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`.

    Notes
    -----
    A difference between two samples counts as a jump where it is over 4 times as large as its two neighbours and
    either those are 0 (a staircase), or it exceeds every other difference within 3 intervals by the same factor and the
    row's noise by 8 robust deviations. Each jump counts less the mean of its two neighbours.

    From samples alone these cannot be told from one another: a jump and a continuous rise within one interval; jumps
    one or two intervals apart, or smaller than noise, and noise (they are not counted); a jump within 3 intervals of
    an end and a kink there (not counted, unless the curve is level on both sides); a stretch of noise in a signal that
    is quiet elsewhere, one of whose differences in a thousand stands out by chance.
    """
    values, give_back = as_tensor(signal)
    check_samples(values, 2 * _APART + 3, "jumps of its value")
    rows, _ = scaled(values.reshape(-1, values.shape[-1]))
    return give_back(shares_of_jumps(rows, torch.finfo(values.dtype).eps).reshape(values.shape[:-1]))


def shares_of_jumps(rows: Tensor, eps: float) -> Tensor:
    """`jump_share` of rows ``(B, n)`` in float64, which were rounded to ``eps`` of their size before they came in."""
    return torch.cat([_shares(block, eps) for block in blocks(rows)])


def _shares(rows: Tensor, eps: float) -> Tensor:
    share, samples, values = rows.new_zeros(len(rows)), rows.shape[1], rows.reshape(-1)
    # Of all rows in one line, so that it is a few passes over contiguous memory; differences between rows are dropped.
    size = values.diff().abs_()
    where = true_places(size[1:-1] > torch.maximum(size[:-2], size[2:]).mul_(_STEEP)) + 1
    where = where[(where % samples > 0) & (where % samples < samples - 2)]
    if not len(where):
        return share
    row, near = where // samples, where + torch.tensor([-1, 1, -3, -2, 2, 3], device=rows.device)[:, None]
    near_size = taken(size, near.clamp(0, len(size) - 1))
    near_size.masked_fill_((near < row * samples) | (near > row * samples + samples - 2), math.inf)
    here, level = taken(size, where), _LEVEL * eps * taken(largest(rows), row)
    stair, alone = near_size[:2].amax(0) <= level, here > _STEEP * near_size.amax(0)
    # The median is taken of the rows that need it, which are few.
    chosen = true_places(torch.bincount(row[alone & ~stair], minlength=len(rows)) > 0)
    noise = torch.full_like(share, math.inf)
    noise[chosen] = robust_deviation(rows[chosen].diff(n=2).abs_())
    where = where[(here > level) & (stair | (alone & (here > _NOISE * taken(noise, row))))]
    before, start, end, after = taken(values, where + torch.arange(-1, 3, device=rows.device)[:, None])
    height = (end - start) - ((start - before) + (after - end)) / 2
    variation = rows.diff().abs_().sum(1).clamp_min(torch.finfo(rows.dtype).tiny)
    return share.index_add_(0, where // samples, height.abs()) / variation


def warn_of_jumps(share: Tensor) -> None:
    """Warn the caller's caller where some of the signals with these shares ``(B,)`` jump in value."""
    jumping = int((share > _SHARE).sum())
    if jumping:
        which = f"{jumping} of {len(share)} signals jump" if len(share) > 1 else "the signal jumps"
        warnings.warn(f"{which} in value (metric.jump_share: up to {float(share.max()):.2g} of the total variation): "
                      "SMP is not defined there, and the reading depends on the spacing; average values that were "
                      "rounded, or take the jumps out", ValueJumpWarning, stacklevel=3)
