"""Why a recorded curve jerks, told from its samples alone."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import smpcore
from smpcore.arguments import POSITIVE, checked
from smpcore.forensics import SAMPLES_NEEDED, Report
from smpcore.forensics import report as judged
from smpcore.metric import jump_share, log_dimensionless_jerk, mean_jerk, slope_variation, smp

__all__ = ["CurveDiagnosis", "diagnose_curve", "read_curve"]

#: Fewest samples: those of `jump_share`, twice over, for the curve at half its rate.
_FEWEST = 40
#: Above this share of the total variation, value jumps are the cause.
_JUMPS = 0.05
#: Σ|Δ²z|/h grows by this power of 1/h: 0 where the samples resolve the curve, up to 1 for kinks closer than they, 2 for
#: white noise.
_NOISE, _COARSE = 1.4, 0.35
#: Kinks over this part of the change of slope are the cause.
_KINKS = 0.2
_WORDS = {
    "value jumps": ("jumps of its value", "look for what is rounded, decoded by an argmax, or cut and joined"),
    "noise": ("noise", "neighbouring samples differ at random: look for random numbers, or an input that jitters"),
    "kinks": ("kinks", "networks with ReLU or max pooling make such curves: `smpcore why` shows which layers"),
    "too coarse": ("bends that the samples do not resolve",
                   "from these samples kinks cannot be told from sharp bends: record more samples a second"),
    "motion": ("smooth motion", "nothing jerks at this rate"),
}


@dataclass(frozen=True)
class CurveDiagnosis:
    """What a curve's samples show; `str` gives it as text.

    Attributes
    ----------
    cause
        ``"value jumps"``, ``"noise"``, ``"kinks"``, ``"too coarse"`` (to tell) or ``"motion"``.
    jumps
        Share of the total variation that is jumps of the value.
    growth
        By which power of the rate the change of slope grows, from half the rate to the whole.
    kinks
        Share of the change of slope that is kinks.
    smp
        Units of the curve per unit of t: a lower bound where kinks are dense.
    verdict
        Of `smpcore.forensics.report`; None under 201 samples.
    rates
        One dictionary for each of the rate, its half and its quarter: rate, slope_variation, acceleration (mean |Δ²z|,
        per frame²), mean_jerk, log_dimensionless_jerk (None at rest).
    """

    cause: str
    jumps: float
    growth: float
    kinks: float
    smp: float
    verdict: Report | None
    rates: list[dict]

    @property
    def sentence(self) -> str:
        """The main cause of the curve's jerk, and what to do about it."""
        words, advice = _WORDS[self.cause]
        how = {"value jumps": f" ({self.jumps:.0%} of its total variation)",
               "kinks": f" ({self.kinks:.0%} of its change of slope)",
               "noise": f": at twice the rate its slope changes {2**self.growth:.1f} times as much (white noise: 4)",
               "too coarse": f": at twice the rate its slope changes {2**self.growth:.1f} times as much"}
        return f"This curve shows {words}{how.get(self.cause, '')}. What to do: {advice}."

    def __str__(self) -> str:
        return f"{self.sentence}\n{self.verdict or ''}".strip()


@checked(rate=POSITIVE)
def diagnose_curve(signal, rate: float) -> CurveDiagnosis:
    """Say why a recorded curve jerks.

    Parameters
    ----------
    signal
        ``(N,)``, numpy or torch, at least 40 samples.
    rate
        Samples per unit of t, positive.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`, for another shape, for fewer samples, and for a constant.
    """
    z = torch.as_tensor(signal).detach().double().cpu()
    if z.ndim != 1 or len(z) < _FEWEST:
        raise ValueError(f"a curve of shape {tuple(z.shape)}: (N,) with at least {_FEWEST} samples is needed")
    jumps, h = float(jump_share(z)), 1 / rate  # NaN and infinity are refused here
    if float(z.max()) == float(z.min()):
        raise ValueError("the curve is constant: record it while its input moves")
    bends = [float(slope_variation(z, h, step * h)) for step in (1, 2)]
    growth = math.log2(max(bends[0], 1e-300) / max(bends[1], 1e-300))
    total = float(smp(z, h)) if jumps <= _JUMPS else math.nan
    kinks = 0.0 if math.isnan(total) else min(1.0, total / max(bends[0], 1e-300))
    told = {"value jumps": jumps > _JUMPS, "noise": growth > _NOISE, "kinks": kinks > _KINKS,
            "too coarse": growth > _COARSE, "motion": True}
    cause = next(name for name, holds in told.items() if holds)
    verdict = judged(z, h) if len(z) >= SAMPLES_NEEDED and jumps <= _JUMPS else None
    return CurveDiagnosis(cause, jumps, growth, kinks, total, verdict, [_at(z, rate, step) for step in (1, 2, 4)])


def _at(z: torch.Tensor, rate: float, step: int) -> dict:
    """Jitter measures from every ``step``-th sample."""
    few = z[::step].contiguous()
    h = step / rate
    try:
        smoothness = float(log_dimensionless_jerk(few, h))
    except ValueError:  # no jerk at all
        smoothness = None
    return {"rate": 1 / h, "slope_variation": float(slope_variation(few, h)),
            "acceleration": float(few.diff(n=2).abs().mean()), "mean_jerk": float(mean_jerk(few, h)),
            "log_dimensionless_jerk": smoothness}


def read_curve(file: str | os.PathLike, column: str | None = None) -> np.ndarray:
    """One column of numbers from a file, ``(N,)``.

    Parameters
    ----------
    file
        .csv, .tsv, .parquet or .npy (one or two dimensions).
    column
        Its name, or its number from 0; needed where there are several of numbers.

    Raises
    ------
    ValueError
        For a file that is not there, cannot be read, or has no such column; the columns that it has are listed.
    """
    path = Path(file).expanduser()
    pd = smpcore.need("pandas")
    readers = {".csv": pd.read_csv, ".tsv": lambda path: pd.read_csv(path, sep="\t"), ".parquet": pd.read_parquet,
               ".npy": lambda path: pd.DataFrame(np.load(path))}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{str(file)!r}: a curve is read from {', '.join(readers)}")
    try:
        frame = readers[path.suffix.lower()](path)
    except Exception as error:
        raise ValueError(f"{str(file)!r} cannot be read ({type(error).__name__}: {error})") from error
    numbers = {str(name): frame[name] for name in frame.select_dtypes("number")}
    if column is None and len(numbers) == 1:
        column = next(iter(numbers))
    if column not in numbers:
        which = "name one with --column" if column is None else f"{column!r} is none of them"
        raise ValueError(f"{str(file)!r} has these columns of numbers: {', '.join(numbers) or 'none'}; {which}")
    return numbers[column].to_numpy(dtype=np.float64, copy=True)  # torch warns of what is only read
