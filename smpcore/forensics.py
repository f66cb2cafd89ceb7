"""Which family of network drew this curve? Judged from samples of one output along a path, no weights needed.

A network with ReLU or max pooling draws kinks, a smooth one does not (theory: SMP against the sampling step is
flat or grows for kinks, falls to 0 without them). `report` reads features that know neither the scale of the
curve nor its speed (`smpcore._curve_features`) and weighs them by a logistic regression, fitted to networks
trained by this project:

    python -m smpcore.forensics --train     # trains the networks again and writes data/forensics.json

What is shipped is that file: plain numbers, no pickle. The idea of SMP as a forensic tool is that of R. Liu,
C.-W. Wong, H. Dai, arXiv:2103.14731 (2021); the features and the classifier are our own.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from smpcore._curve_features import FEATURES, SAMPLES_NEEDED, curve_features
from smpcore._forensics_bank import CONDITIONS, cross_validate, degrade, fit, make_bank, probability, table
from smpcore._suspects import recipes
from smpcore.metric import smp

__all__ = ["CONDITIONS", "FEATURES", "SAMPLES_NEEDED", "Report", "bank", "cross_validate", "degrade", "features",
           "make_bank", "probability_kinked", "recipes", "report", "table"]

# No clean curve of the bank is as rough as this, every curve with 8 bits or 1% of noise is: on those next to
# none was judged with confidence when held out, and rougher ones were never trained on.
_TOO_ROUGH = -2.65
_DATA = Path(__file__).parent / "data" / "forensics.json"


@dataclass(frozen=True)
class Report:
    """A verdict on one curve; `str` of it is for reading.

    Attributes
    ----------
    verdict
        ``"kinked"``, ``"smooth"`` or ``"cannot tell"``.
    kinked
        Probability that the network has units that kink.
    max_pooling
        Probability that it pools by maximum, given that its activation is a ReLU; None unless ``"kinked"``.
    smp
        SMP of the curve, in signal units per unit of t: from samples, a lower bound where kinks are dense.
    reason
        Why it cannot tell, or on what the verdict rests.
    """

    verdict: str
    kinked: float
    max_pooling: float | None
    smp: float
    reason: str

    def __str__(self) -> str:
        lines = [f"{self.verdict}: a kinked network with probability {self.kinked:.2f} ({self.reason})"]
        if self.max_pooling is not None:
            side = "with" if self.max_pooling > 0.9 else "without" if self.max_pooling < 0.1 else "cannot tell,"
            lines.append(f"max pooling: {side} (probability {self.max_pooling:.2f}, if its activation is a ReLU)")
        return "\n".join([*lines, f"SMP {self.smp:.3g}"])


def features(signal: torch.Tensor | np.ndarray) -> dict[str, float]:
    """The features of one curve (N,) by name; neither scale, offset nor speed changes them.

    Raises
    ------
    TypeError, ValueError
        As `report`.
    """
    return dict(zip(FEATURES, curve_features(_checked(signal, 1.0)[0]).tolist(), strict=True))


def report(signal: torch.Tensor | np.ndarray, spacing: float = 1.0, *, confidence: float = 0.9) -> Report:
    """Say which family of network drew a curve, or that it cannot be told.

    Parameters
    ----------
    signal
        ``(N,)``: one output at evenly spaced times, at least `SAMPLES_NEEDED` of them.
    spacing
        Units of t from one sample to the next; only the SMP depends on it.
    confidence
        Between 0.5 and 1: below this probability the verdict is "cannot tell".

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`; for more than one signal, one that is too short (how many samples it needs) or
        constant, and a confidence out of range.

    Notes
    -----
    Trained on small regressors of one kind. A smooth activation that is sharp enough (softplus with β of 20
    and more) passes for kinked wherever the samples cannot resolve its bends.
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r}: it must lie between 0.5 and 1")
    values, total = _checked(signal, spacing)
    row = curve_features(values)
    roughness = row[FEATURES.index("roughness")]
    kinked = probability_kinked(row)
    if roughness > _TOO_ROUGH:
        return Report("cannot tell", kinked, None, total, "too much noise or rounding for its kinks")
    if kinked >= confidence:
        reason = "what bends is gathered in kinks"
        pools = float(probability(_shipped()["classifier"]["heads"]["max pooling"], row))
        return Report("kinked", kinked, pools, total, reason)
    if kinked <= 1 - confidence:
        return Report("smooth", kinked, None, total, "bends vanish as the step shrinks")
    # The roughness is what white noise would have to be: rounding and noise alike.
    noisy = roughness > -4.5
    reason = "too much noise or rounding for its kinks" if noisy else f"{len(values):,} samples are too few"
    return Report("cannot tell", kinked, None, total, reason)


def probability_kinked(row) -> float:
    """What the shipped classifier makes of one row of features ``(16,)``, ordered as `FEATURES`."""
    return float(probability(_shipped()["classifier"]["heads"]["kinked"], np.asarray(row)))


def bank() -> list[dict]:
    """The shipped bank: for each trained network its recipe, test error, and features by condition."""
    return _shipped()["bank"]


def _checked(signal, spacing: float) -> tuple[np.ndarray, float]:
    total = smp(signal, spacing)
    values = signal.detach().cpu().numpy() if isinstance(signal, torch.Tensor) else np.asarray(signal)
    if values.ndim != 1:
        raise ValueError(f"one signal (N,) is judged at a time, not {values.shape}: call it for each")
    if len(values) < SAMPLES_NEEDED:
        raise ValueError(f"a signal of {len(values)} samples is too short to judge: at least {SAMPLES_NEEDED} "
                         "are needed")
    values = values.astype(np.float64)
    if np.ptp(values) == 0:
        raise ValueError("the signal is constant: move the input, or choose an output that answers to it")
    return values, float(total)


@functools.cache
def _shipped() -> dict:
    return json.loads(_DATA.read_text(encoding="utf-8"))


def _write(bank: list[dict], path: Path) -> None:
    path.write_text(json.dumps({"classifier": fit(bank), "bank": bank}, separators=(",", ":")) + "\n",
                    encoding="utf-8")


def _main() -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m smpcore.forensics", description="Make the shipped classifier.")
    parser.add_argument("--train", action="store_true", required=True, help="train the networks of the bank")
    parser.add_argument("--seeds", type=int, default=3, help="34 networks for each; 3 are shipped")
    parser.add_argument("--output", type=Path, default=_DATA, help="where the classifier and its bank go")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    _write(make_bank(recipes(chosen.seeds)), chosen.output)


if __name__ == "__main__":
    _main()
