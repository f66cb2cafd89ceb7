"""Which kind of network made this curve? Judged from samples of its outputs along a path, without its weights.

The output of a network with ReLU or max pooling has kinks, that of a smooth one has none (theory: as samples get
denser, SMP stays or grows if there are kinks, and falls to 0 if not). `report` first excludes curves that cannot be
judged (`smpcore.forensics.abstention`), then computes features that do not depend on the curve's scale or sampling
interval (`smpcore.forensics.features`) and passes them to a logistic regression, fitted to networks that this project
trained:

    python -m smpcore.forensics --check     # what it gets right on networks and paths that were held out
    python -m smpcore.forensics --train     # trains the networks again and writes forensics.json

What is shipped is that file: plain numbers, no pickle. The idea of SMP as a forensic tool is that of R. Liu,
C.-W. Wong, H. Dai, arXiv:2103.14731 (2021); the features and the classifier are our own (notebook 08, "What the
samples show").
"""

import functools
import json
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import torch

from smpcore.arguments import Kind, checked
from smpcore.forensics.abstention import row_of_features, unfit, verdict
from smpcore.forensics.classifier import fit, logit, probability
from smpcore.forensics.features import FEATURES, SAMPLES_NEEDED, curve_features
from smpcore.metric.checks import as_tensor
from smpcore.metric.estimator import smp

__all__ = ["Report", "bank", "features", "probability_kinked", "report"]

# Version of the shipped file; to be raised when the meaning of a feature changes.
_VERSION = 2
DATA = Path(__file__).parent / "forensics.json"

@dataclass(frozen=True)
class Report:
    """A verdict on the curves of one network; `str` gives it as text.

    Attributes
    ----------
    verdict
        ``"kinked"``, ``"smooth"`` or ``"cannot tell"``. "smooth" means that no kink was seen that holds a
        thousandth of the bending; smaller ones may be there.
    kinked
        Probability that the network has units that make kinks; None where no curve was fit to be judged.
    max_pooling
        Probability that it has max pooling, given that its activation is a ReLU: a weak hint, no verdict. None
        unless ``"kinked"``.
    smp
        SMP of the curve, the mean over several, in signal units per unit of t: from samples, a lower bound where
        kinks are dense.
    reason
        Why there is no verdict, or what the verdict is based on.
    confidence
        The probability that a verdict needs, as given to `report`.
    judged, curves
        How many curves were fit to be judged, and how many there were.
    """

    verdict: str
    kinked: float | None
    max_pooling: float | None
    smp: float
    reason: str
    confidence: float
    judged: int = 1
    curves: int = 1

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}"]
        if self.kinked is not None:
            lines.append(f"a kinked network with probability {self.kinked:.2f}; {self.confidence:g} was asked for")
        if self.max_pooling is not None:
            lines.append(f"max pooling with probability {self.max_pooling:.2f}, if its activation is a ReLU: a weak "
                         "hint, no verdict")
        lines.append(f"SMP {self.smp:.3g}")
        if self.curves > 1:
            lines.append(f"{self.judged} of {self.curves} curves were fit to be judged")
        return "\n".join(lines)


def features(signal: torch.Tensor | np.ndarray) -> dict[str, float]:
    """The features of one curve (N,) by name; neither scale, offset nor speed changes them.

    Raises
    ------
    TypeError, ValueError
        As `report`, and for more than one curve.
    """
    values, *_ = _checked(signal, 1.0)
    if len(values) > 1:
        raise ValueError(f"features are read from one curve (N,), not from {len(values)}: call it for each")
    return dict(zip(FEATURES, curve_features(values)[0].tolist(), strict=True))


@checked(confidence=Kind(Real, ": it must be a number between 0.5 and 1", lambda value: 0.5 < value < 1,
                         ": it must lie between 0.5 and 1"))
def report(signal: torch.Tensor | np.ndarray, spacing: float = 1.0, *, confidence: float = 0.9) -> Report:
    """Judge which kind of network made a curve, or several curves, or report that this cannot be told.

    Parameters
    ----------
    signal
        ``(N,)``, one output at evenly spaced times, at least `SAMPLES_NEEDED` of them; or ``(m, N)``: several
        curves of one network, from several outputs or paths, whose log odds are averaged. Curves that cannot be
        judged are left out of the mean.
    spacing
        Units of t from one sample to the next; only the SMP depends on it.
    confidence
        Between 0.5 and 1: below this probability the verdict is "cannot tell".

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`; for a signal of the wrong shape, too short (how many samples it needs) or constant, and a
        confidence out of range.

    Notes
    -----
    Trained on small regressors of one kind. A smooth activation that is sharp enough (softplus with β of 20
    and more) is judged as kinked wherever the samples do not resolve its bends.
    """
    values, total, eps = _checked(signal, spacing)
    rows = curve_features(values)
    reasons = [unfit(value, row, eps, _head("kinked")) for value, row in zip(values, rows, strict=True)]
    fit_rows = rows[[reason is None for reason in reasons]]
    counts = {"confidence": float(confidence), "judged": len(fit_rows), "curves": len(values)}
    if not len(fit_rows):
        return Report("cannot tell", None, None, total, max(reasons, key=reasons.count), **counts)
    kinked = _mean_probability("kinked", fit_rows)
    said, reason = verdict(kinked, fit_rows, confidence)
    pools = _mean_probability("max pooling", fit_rows) if said == "kinked" else None
    return Report(said, kinked, pools, total, reason, **counts)


@checked(row=row_of_features(1))
def probability_kinked(row) -> float:
    """Probability of "kinked" by the shipped classifier, from one row of features ``(F,)``, ordered as `FEATURES`.

    Raises
    ------
    ValueError
        For a row of another length, or with NaN in it.
    """
    return float(probability(_head("kinked"), np.asarray(row)))


def bank() -> list[dict]:
    """The shipped bank: for each trained network its recipe, test error, and features by condition, one row a path."""
    return _shipped()["bank"]


def _head(name: str) -> dict:
    return _shipped()["classifier"]["heads"][name]


def _mean_probability(head: str, rows: np.ndarray) -> float:
    return float(1 / (1 + np.exp(-logit(_head(head), rows).mean())))


def _checked(signal, spacing: float) -> tuple[np.ndarray, float, float]:
    """Curves (m, N) in float64, scaled to a magnitude of 1, their mean SMP, and what rounding may have done to a value
    of 1 in the type that the signal came in."""
    given, _ = as_tensor(signal)
    if given.ndim > 2:
        raise ValueError(f"one curve (N,) or several of one network (m, N) are judged at a time, not "
                         f"{tuple(given.shape)}")
    if given.ndim and given.shape[-1] < SAMPLES_NEEDED:
        raise ValueError(f"a signal of {given.shape[-1]} samples is too short to judge: at least {SAMPLES_NEEDED} are "
                         "needed")
    total = smp(given.contiguous(), spacing).double().cpu().reshape(-1).numpy()
    if not len(total):
        raise ValueError(f"there is no curve in a signal of shape {tuple(given.shape)}")
    values = np.atleast_2d(given.double().cpu().numpy())
    if not np.ptp(values, axis=1).all():
        which = f"curve {int(np.ptp(values, axis=1).argmin())}" if len(values) > 1 else "the signal"
        raise ValueError(f"{which} is constant: move the input, or choose an output that depends on it")
    values = np.ascontiguousarray(values / np.abs(values).max(1, keepdims=True))
    return values, float(total.mean()), torch.finfo(given.dtype).eps


@functools.cache
def _shipped() -> dict:
    found = json.loads(DATA.read_text(encoding="utf-8"))
    if found.get("version") != _VERSION or found["classifier"]["features"] != list(FEATURES):
        raise ValueError(f"{DATA.name} was made for other features than these: make it again by "
                         "`python -m smpcore.forensics --train`")
    return found


def write(bank: list[dict], path: Path) -> None:
    """Fit the classifier to a bank, and store both in one file of plain numbers."""
    content = {"version": _VERSION, "classifier": fit(bank), "bank": bank}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
