"""Jumps of a sampled curve's value, where its slope and SMP are not defined.

A jump lies in one interval between samples and stays as high as samples grow dense, while everything continuous
shrinks with the spacing. So a jump is an interval's difference that exceeds its neighbours' by far.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.arrays import Array, by_portions, count, namespace, true_places
from smpcore.metric.checks import as_tensor, check_samples, scaled
from smpcore.metric.kink_residual import robust_deviation

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
    eps = torch.finfo(values.dtype).eps

    def shares(part: Array) -> tuple[Array]:
        rows, size, _ = scaled(part)
        return (shares_of_jumps(namespace(rows).diff(rows), eps * size),)

    share, = by_portions(shares, values.reshape(-1, values.shape[-1]))
    return give_back(share.reshape(values.shape[:-1]))


def shares_of_jumps(steps: Array, rounding: Array) -> Array:
    """`jump_share` of rows whose differences are ``steps (B, n)`` and whose rounding error is ``rounding (B,)``."""
    xp, samples = namespace(steps), steps.shape[1]
    size = abs(steps).reshape(-1)
    # Of all rows in one line; differences whose neighbours lie in another row are dropped.
    steep = _STEEP * size
    where = true_places((size[1:-1] > steep[:-2]) & (size[1:-1] > steep[2:])) + 1
    place = where % samples
    where = where[(place > 0) & (place < samples - 1)]
    share = xp.zeros_like(rounding)
    if not len(where):
        return share
    row, around = where // samples, count(2 * _APART + 1, where)[:, None] - _APART
    near = where % samples + around
    near_size = size.take((where + around).clip(0, len(size) - 1))
    near_size[_APART] = 0
    near_size[(near < 0) | (near >= samples)] = math.inf
    here, level = size.take(where), _LEVEL * rounding.take(row)
    stair = xp.maximum(near_size[_APART - 1], near_size[_APART + 1]) <= level
    alone = here > _STEEP * xp.amax(near_size, 0)
    # The median is taken of the rows that need it, which are few.
    chosen = true_places(xp.bincount(row[alone & ~stair], minlength=len(steps)) > 0)
    noise = xp.full_like(share, math.inf)
    noise[chosen] = robust_deviation(abs(xp.diff(steps[chosen])))
    jump = (here > level) & (stair | (alone & (here > _NOISE * noise.take(row))))
    row, (before, own, after) = row[jump], steps.take(where[jump] + around[_APART - 1:_APART + 2])
    height = own - (before + after) / 2
    variation = abs(steps).sum(1).clip(min=torch.finfo(torch.float64).tiny)
    return xp.bincount(row, abs(height), len(steps)) / variation


def warn_of_jumps(share: Tensor) -> None:
    """Warn the caller's caller where some of the signals with these shares ``(B,)`` jump in value."""
    jumping = int((share > _SHARE).sum())
    if jumping:
        which = f"{jumping} of {len(share)} signals jump" if len(share) > 1 else "the signal jumps"
        warnings.warn(f"{which} in value (metric.jump_share: up to {float(share.max()):.2g} of the total variation): "
                      "SMP is not defined there, and the reading depends on the spacing; average values that were "
                      "rounded, or take the jumps out", ValueJumpWarning, stacklevel=3)
