"""When the verdict is "cannot tell": curves that cannot be judged, and features that contradict the classifier.

`unfit` checks one curve before the classifier judges it; `verdict` checks the classifier's probability for all others.
"""

from numbers import Real

import numpy as np

from smpcore.arguments import Kind, checked
from smpcore.forensics.features import FEATURES

__all__ = ["row_of_features", "unfit", "verdict"]

# Second differences of white noise have deviation √6; their largest among some thousands is four times that.
_NOISE = 10.0
_ROUNDINGS = 16  # largest error of a straight line's values, in units in the last place
_ALONE = 20.0  # a difference this many times as large as its neighbours is a value jump
_VISIBLE = 1e-2  # of the curve's range
# Roughness above every clean curve of the bank with 501 samples or more, and below every curve with 8 bits or 1% of
# noise. Held-out curves above it hardly ever got a confident verdict, and the bank has none that are much rougher.
_TOO_ROUGH = -2.65
_MARGIN = 0.1  # of a feature's range in the bank, by which a new network's may lie outside
_NONE = -3.99  # log10 of the share of bending that is kinks, where there is none
_FEW = -3.0  # a thousandth of the bending
_SAME = 0.05  # log10: SMP the same to about a tenth, as that of lone kinks is at every step
# Bending at every 4th sample beside that at every 16th, log. It settles on smooth curves (0.12 at most in the bank at
# 2,001 samples); where kinks are too dense to be seen it grows by log(2).
_SETTLED = 0.5
_PROBABILITY = Kind(Real, ": it must be a probability, from 0 to 1", lambda value: 0 <= value <= 1)
_ROUGH = "too much noise or rounding for its kinks"  # rounding looks the same as noise


def row_of_features(dimensions: int) -> Kind:
    """The kind of an array of features: (F,) for one curve, (C, F) for several."""
    def holds(rows):
        rows = np.asarray(rows, dtype=np.float64)
        return rows.ndim == dimensions and rows.shape[-1] == len(FEATURES) and rows.size and np.isfinite(rows).all()

    return Kind(object, f": it must be an array of {dimensions} dimension(s), {len(FEATURES)} finite features a curve",
                holds)


def unfit(values: np.ndarray, row: np.ndarray, eps: float, head: dict) -> str | None:
    """Why one curve cannot be judged, in words; None where it can.

    Parameters
    ----------
    values, row
        The curve (N,), and its features (F,).
    eps
        The rounding error of a value of 1 in the type that the curve came in.
    head
        The part of the classifier that is to judge it, which knows what it was trained on.
    """
    low, high = np.array(head["low"]), np.array(head["high"])
    margin = _MARGIN * (high - low)
    outside = [name for name, out in zip(FEATURES, (row < low - margin) | (row > high + margin), strict=True) if out]
    return _first({
        "its values jump, as no network's of the bank do: rounded to few values, or cut and joined?": _jumps(values),
        _ROUGH: _of(row, "roughness") > _TOO_ROUGH,
        "straight within its noise and rounding: a ReLU network between two kinks looks the same":
            _straight(values, eps),
        f"unlike anything it was trained on, in {len(outside)} of {len(row)} features ({', '.join(outside)})": outside,
    })


@checked(kinked=_PROBABILITY, confidence=_PROBABILITY, rows=row_of_features(2))
def verdict(kinked: float, rows: np.ndarray, confidence: float = 0.9) -> tuple[str, str]:
    """The verdict from a probability and the features that may contradict it, and the reason for the verdict.

    Parameters
    ----------
    kinked
        Probability that the network is kinked.
    rows
        ``(C, F)``: features of its curves, ordered as `FEATURES`.
    confidence
        As in `report`.

    Raises
    ------
    TypeError, ValueError
        For what is not a probability, and for features of another shape.
    """
    sure = "kinked" if kinked >= confidence else "smooth" if kinked <= 1 - confidence else ""
    none = (_of(rows, "kinks_1") <= _NONE) & (_of(rows, "lag_auto") <= _NONE)
    lone = (np.abs(_of(rows, "smp_2")) < _SAME) & (np.abs(_of(rows, "smp_4")) < _SAME)
    doubt = _first({
        _ROUGH: (_of(rows, "roughness") > _TOO_ROUGH).all(),
        "it bends sharply, but no sample shows a kink": sure == "kinked" and none.all(),
        "most of its bending is smooth, but a few kinks stand out":
            sure == "smooth" and (lone & (_of(rows, "kinks_1") > _FEW)).any(),
        "its bending grows as the step shrinks: noise, or kinks closer than its samples":
            sure == "smooth" and (_of(rows, "growth_16") - _of(rows, "growth_4") > _SETTLED).any(),
        "it is like curves of either kind: more samples, or less noise, may tell": not sure,
    })
    grounds = {"kinked": "its bending is concentrated in kinks",
               "smooth": "hardly any kinks, and bends vanish as the step shrinks"}
    return ("cannot tell", doubt) if doubt else (sure, grounds[sure])


def _first(reasons: dict) -> str | None:
    """The first of the reasons that holds."""
    return next((reason for reason, holds in reasons.items() if holds), None)


def _straight(values: np.ndarray, eps: float) -> bool:
    """Whether a curve bends no more than its noise and rounding."""
    # Over an eighth of the curve, so that what bends slowly shows.
    step = len(values) // 8
    bend = np.abs(values[2 * step:] - 2 * values[step:-step] + values[:-2 * step]).max()
    noise = np.sqrt((np.diff(values, 6) ** 2).mean() / 924)
    return bend <= max(_NOISE * noise, _ROUNDINGS * eps * np.abs(values).max())


def _jumps(values: np.ndarray) -> bool:
    """Whether a curve's largest first difference stands alone: its two neighbours on either side are far smaller."""
    steps = np.abs(np.diff(values))
    n = int(steps.argmax())
    around = np.concatenate([steps[max(0, n - 2):n], steps[n + 1:n + 3]]).max()
    return steps[n] > max(_ALONE * around, _VISIBLE * np.ptp(values))


def _of(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[..., FEATURES.index(name)]
