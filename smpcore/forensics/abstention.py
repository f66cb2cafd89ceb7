"""Rules for "cannot tell": curves unfit for the classifier, and verdicts that the features contradict."""

import numpy as np

from smpcore.forensics.features import FEATURES

__all__ = ["doubt_of_kinked", "doubt_of_smooth", "jumps", "straight", "too_rough", "unlike"]

# Second differences of white noise have deviation √6; their largest among some thousands is four times that.
_NOISE = 10.0
_ROUNDINGS = 16  # units in the last place that a straight line's values may be off by
_ALONE = 20.0  # a step of a value that is so many times its neighbours' is a jump
_VISIBLE = 1e-2  # of the curve's range
# Roughness above every clean curve of the bank with 501 samples or more, and below every curve with 8 bits or 1% of
# noise. Held-out curves above it hardly ever got a confident verdict, and the bank has none that are much rougher.
_TOO_ROUGH = -2.65
_MARGIN = 0.1  # of a feature's range in the bank: new networks stray a little
_NONE = -3.99  # log10 of the share of bending that is kinks, where there is none
_FEW = -3.0  # a thousandth of the bending
_SAME = 0.05  # log10: SMP the same to about a tenth, as that of lone kinks is at every step
# Bending at every 4th sample beside that at every 16th, log. It settles on smooth curves (0.12 at most in the bank at
# 2,001 samples); where kinks are too dense to be seen it grows by log(2).
_SETTLED = 0.5


def straight(values: np.ndarray, eps: float) -> str | None:
    """Whether a curve (N,) bends no more than its noise and rounding; ``eps`` is that of the type it came in."""
    # Over an eighth of the curve, so that what bends slowly shows.
    step = len(values) // 8
    bend = np.abs(values[2 * step:] - 2 * values[step:-step] + values[:-2 * step]).max()
    noise = np.sqrt((np.diff(values, 6) ** 2).mean() / 924)
    if bend > max(_NOISE * noise, _ROUNDINGS * eps * np.abs(values).max()):
        return None
    return "straight within its noise and rounding: a ReLU network between two kinks looks the same"


def jumps(values: np.ndarray) -> str | None:
    """Whether a curve's largest first difference stands alone: its two neighbours on either side are far smaller."""
    steps = np.abs(np.diff(values))
    n = int(steps.argmax())
    around = np.concatenate([steps[max(0, n - 2):n], steps[n + 1:n + 3]]).max()
    if steps[n] <= max(_ALONE * around, _VISIBLE * np.ptp(values)):
        return None
    return "its values jump, as no network's of the bank do: rounded to few values, or cut and joined?"


def too_rough(row: np.ndarray) -> str | None:
    """Whether a row of features ``(F,)`` is that of noise, or of rounding, which looks the same."""
    return "too much noise or rounding for its kinks" if _of(row, "roughness") > _TOO_ROUGH else None


def unlike(row: np.ndarray, head: dict) -> str | None:
    """Whether a row of features lies well outside what a head of the classifier has seen, and in which of them."""
    low, high = np.array(head["low"]), np.array(head["high"])
    margin = _MARGIN * (high - low)
    outside = [name for name, out in zip(FEATURES, (row < low - margin) | (row > high + margin), strict=True) if out]
    if not outside:
        return None
    return f"unlike anything it was trained on, in {len(outside)} of {len(row)} features ({', '.join(outside)})"


def doubt_of_kinked(rows: np.ndarray) -> str | None:
    """Whether curves that pass for kinked, features ``(C, F)``, show no kink at all."""
    none = (_of(rows, "kinks_1") <= _NONE) & (_of(rows, "lag_auto") <= _NONE)
    return "it bends sharply, but no sample shows a kink" if none.all() else None


def doubt_of_smooth(rows: np.ndarray) -> str | None:
    """Whether among curves that pass for smooth one has kinks that are the same at every step, or never settles."""
    lone = (np.abs(_of(rows, "smp_2")) < _SAME) & (np.abs(_of(rows, "smp_4")) < _SAME)
    if (lone & (_of(rows, "kinks_1") > _FEW)).any():
        return "most of its bending is smooth, but a few kinks stand out"
    if (_of(rows, "growth_16") - _of(rows, "growth_4") > _SETTLED).any():
        return "its bending grows as the step shrinks: noise, or kinks closer than its samples"
    return None


def _of(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[..., FEATURES.index(name)]
