"""What is read from one curve: numbers that change neither with its scale and offset nor with its speed."""

import numpy as np

from smpcore.metric import find_kinks, smp

__all__ = ["FEATURES", "SAMPLES_NEEDED", "curve_features"]

#: Fewest samples that every feature can be read from: kinks at a quarter of the rate, bending at a sixteenth.
SAMPLES_NEEDED = 201
# Fractions below this count as none: log10 of 0 would be the loudest feature of all.
_NONE = 1e-4

FEATURES = (
    "kinks_1", "kinks_2", "kinks_4",        # log10, share of the bending that is kinks, every 1, 2, 4 samples
    "decay_2", "decay_4",                   # that share at every sample against every 2, 4: flat, or to 0
    "lag_2", "lag_4", "lag_auto",           # log10, kinks at longer lags against the bending at a coarse step
    "growth_2", "growth_4", "growth_16",    # log, bending at the full rate against that at every 2, 4, 16
    "density",                              # log10, kinks for each sample
    "evenness", "largest", "balance",       # distribution of jumps: even or few, the largest's share, one sign?
    "roughness",                            # log10, white noise that would give these sixth differences
)


def curve_features(signal: np.ndarray) -> np.ndarray:
    """(N,) -> (16,): the `FEATURES` of one curve that is not constant.

    The spacing drops out of every one of them, for each is a ratio of two slopes' jumps or a count.
    """
    z = (signal - signal.mean()) / signal.std()
    # Bending at a step s is Σ|z(n+s) − 2 z(n) + z(n−s)|/s over every s-th sample, in units of the spacing.
    bend = {s: np.abs(np.diff(z[::s], 2)).sum() / s + 1e-15 for s in (1, 2, 4, 16)}
    share = {s: float(smp(z[::s], s, lag=1)) / bend[s] for s in (1, 2, 4)}
    coarse = bend[16]
    lagged = [float(smp(z, 1.0, lag=lag)) / coarse for lag in (2, 4, "auto")]
    signed = find_kinks(z, lag=1).jumps
    jumps = np.abs(signed)
    total = jumps.sum()
    if total > 0:
        spread = [total**2 / (len(jumps) * (jumps**2).sum()), jumps.max() / total, abs(signed.sum()) / total]
    else:
        spread = [1.0, 1.0, 1.0]
    # White noise of deviation 1 has sixth differences of deviation √924, mean magnitude 0.8 of it.
    rough = np.abs(np.diff(z, 6)).mean() / (np.sqrt(924) * np.sqrt(2 / np.pi))
    log = np.log10
    return np.array([
        *(log(_NONE + share[s]) for s in (1, 2, 4)),
        *(log((_NONE + share[1]) / (_NONE + share[s])) for s in (2, 4)),
        *(log(_NONE + value) for value in lagged),
        *(np.log(bend[1] / bend[s]) for s in (2, 4, 16)),
        log((len(jumps) + 0.5) / len(z)), *spread, log(1e-12 + rough),
    ])
