"""Features of curves: numbers that do not depend on a curve's scale, offset or sampling interval."""

import warnings

import numpy as np

from smpcore.metric.estimator import smp
from smpcore.metric.kink_residual import kink_parts
from smpcore.metric.value_jumps import ValueJumpWarning

__all__ = ["FEATURES", "SAMPLES_NEEDED", "curve_features"]

#: Fewest samples that every feature can be read from: kinks at a quarter of the rate, bending at a sixteenth.
SAMPLES_NEEDED = 201
# Added to fractions before their log10, which would be -infinity for 0.
_NONE = 1e-4
_WINDOW, _THRESHOLD = 9, 5.0  # as `smpcore.smp` has them

FEATURES = (
    "kinks_1", "kinks_2", "kinks_4",        # log10, share of the bending that is kinks, every 1st, 2nd, 4th sample
    "decay_2", "decay_4",                   # log10, that share from every sample over that from every 2nd, 4th
    "smp_2", "smp_4",                       # log10, SMP from every sample over that from every 2nd, 4th
    "lag_2", "lag_4", "lag_auto",           # log10, SMP at longer lags over the bending of every 16th sample
    "growth_2", "growth_4", "growth_16",    # log, bending of every sample over that of every 2nd, 4th, 16th
    "density",                              # log10, kinks for each sample
    "evenness", "largest", "balance",       # of the jumps: (Σ|J|)²/(K ΣJ²), the largest's share, |ΣJ|/Σ|J|
    "roughness",                            # log10, deviation of white noise with sixth differences as large
)


def curve_features(signals: np.ndarray) -> np.ndarray:
    """(..., N) -> (..., F): the `FEATURES` of curves none of which is constant.

    Each is a ratio of two sums of jumps, or a count, so the spacing cancels. One call for many curves costs far less
    than a call for each.
    """
    rows = signals.reshape(-1, signals.shape[-1])
    z = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    # Bending at a step s is Σ|z(n+s) − 2 z(n) + z(n−s)|/s over every s-th sample, in units of the spacing.
    bend = {s: np.abs(np.diff(z[:, ::s], 2)).sum(1) / s + 1e-15 for s in (1, 2, 4, 16)}
    coarse = bend[16]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValueJumpWarning)  # the report says so of the curve itself
        kinks = {s: smp(np.ascontiguousarray(z[:, ::s]), s, lag=1) for s in (1, 2, 4)}
        lagged = [smp(z, 1.0, lag=lag) / coarse for lag in (2, 4, "auto")]
    share = {s: kinks[s] / bend[s] for s in kinks}
    part = {s: kinks[s] / coarse for s in kinks}
    # White noise of deviation 1 has sixth differences of deviation √924, mean magnitude 0.8 of it.
    rough = np.abs(np.diff(z, 6)).mean(1) / (np.sqrt(924) * np.sqrt(2 / np.pi))
    log = np.log10
    found = np.stack([
        *(log(_NONE + share[s]) for s in (1, 2, 4)),
        *(log((_NONE + share[1]) / (_NONE + share[s])) for s in (2, 4)),
        *(log((_NONE + part[1]) / (_NONE + part[s])) for s in (2, 4)),
        *(log(_NONE + value) for value in lagged),
        *(np.log(bend[1] / bend[s]) for s in (2, 4, 16)),
        *_of_jumps(z), log(1e-12 + rough),
    ], axis=1)
    return found.reshape(*signals.shape[:-1], len(FEATURES))


def _of_jumps(z: np.ndarray) -> list[np.ndarray]:
    """Density, evenness, largest share and balance of the jumps of each row; 1 where it has none."""
    second = np.diff(z, 2)
    (where, jump, sign), _ = kink_parts(second, _WINDOW, _THRESHOLD, 2 * np.finfo(z.dtype).eps * np.abs(z).max(1))
    owner = where // second.shape[1]
    # Neighbouring parts of one sign are one kink.
    first = np.diff(where, prepend=-2) > 1
    first[1:] |= (np.diff(sign) != 0) | (np.diff(owner) != 0)
    if len(where):
        start = np.flatnonzero(first)
        jump, owner = np.add.reduceat(jump, start), owner[start]
    count, size = np.bincount(owner, minlength=len(z)), np.abs(jump)
    total = np.bincount(owner, size, len(z))
    largest = np.zeros(len(z))
    np.maximum.at(largest, owner, size)
    squares = np.bincount(owner, size**2, len(z))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (total**2 / (count * squares), largest / total, np.abs(np.bincount(owner, jump, len(z))) / total)
    return [np.log10((count + 0.5) / z.shape[1]), *(np.where(total > 0, each, 1.0) for each in spread)]
