"""The bank of trained networks' features, and the classifier fitted to it; needs scikit-learn.

The bank holds, for every network and each of several paths, the features of its curve as it is, and with noise, rounded
to few bits, and with fewer samples.
"""

from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

import smpcore
from smpcore.arguments import Kind, checked, one_of, several, whole
from smpcore.forensics.features import FEATURES, curve_features
from smpcore.forensics.training import PATHS, watch

__all__ = ["CONDITIONS", "HEADS", "Judged", "auc", "averaged", "bank_entry", "cross_validate", "degrade", "fit",
           "logit", "make_bank", "probability", "table"]

#: (noise as a share of the curve's deviation, bits or 0, take every so many samples of 2,001), by name.
CONDITIONS = {
    "clean": (0.0, 0, 1),
    "noise 1e-5": (1e-5, 0, 1), "noise 1e-4": (1e-4, 0, 1), "noise 1e-3": (1e-3, 0, 1),
    "noise 1e-2": (1e-2, 0, 1),
    "16 bits": (0.0, 16, 1), "14 bits": (0.0, 14, 1), "12 bits": (0.0, 12, 1), "10 bits": (0.0, 10, 1),
    "8 bits": (0.0, 8, 1),
    "1,001 samples": (0.0, 0, 2), "501 samples": (0.0, 0, 4), "251 samples": (0.0, 0, 8),
}
#: The two questions: can any unit of the network make a kink, and, for ReLU networks, is there max pooling.
HEADS = ("kinked", "max pooling")
_SAMPLES = 2001
# Test error, in standard deviations of the truth, above which a network has not learned its task.
_LEARNED = 0.5
_PENALTY = 0.1  # C of the logistic regressions


class Judged(NamedTuple):
    """Curves of networks that were held out, one entry for each ``(C,)``: ``probability``, the truth, the
    ``network``'s number, its ``path``'s, and the name of the ``condition``."""

    probability: np.ndarray
    truth: np.ndarray
    network: np.ndarray
    path: np.ndarray
    condition: np.ndarray

    def where(self, chosen: np.ndarray) -> "Judged":
        """The curves that a mask or an index picks."""
        return Judged(*(column[chosen] for column in self))


_BANK = Kind(list, ": it must be a list of networks, as bank() or make_bank() gives it",
             lambda bank: all("features" in entry for entry in bank), ": one of its entries is no network of a bank")
_JUDGED = Kind(Judged, ": it must be a Judged, as cross_validate() gives it", broken=": it must hold a probability for "
               "every curve, and curves of both kinds of network")


@checked(condition=one_of(CONDITIONS), seed=whole(0), curve=Kind(
    object, ": it must be an array (N,) of finite numbers, not all the same",
    lambda curve: curve.ndim == 1 and np.isfinite(curve).all() and np.ptp(curve) > 0))
def degrade(curve: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """A curve (N,) as a condition of `CONDITIONS` leaves it; the seed draws its noise.

    Raises
    ------
    TypeError, ValueError
        For a condition that is none of them, a seed under 0, a curve of another shape, or constant.
    """
    noise, bits, every = CONDITIONS[condition]
    curve = curve[::every]
    if noise:
        curve = curve + noise * curve.std() * np.random.default_rng(seed).standard_normal(len(curve))
    if bits:
        low, high = curve.min(), curve.max()
        curve = low + (high - low) * np.round((curve - low) / (high - low) * (2**bits - 1)) / (2**bits - 1)
    return curve


def bank_entry(recipe, curves: np.ndarray, test_error: float) -> dict:
    """One network of the bank, as plain values: its recipe, test error, and features by condition.

    Parameters
    ----------
    recipe
        A `smpcore.models.regressors.Recipe`.
    curves
        ``(paths, N)``: an output along each path.
    test_error
        As `smpcore.models.regressors.Trained` has it.

    Raises
    ------
    ValueError
        For a network that has not learned its task (a test error over 0.5, where 1 is a constant answer).
    """
    if not test_error < _LEARNED:
        raise ValueError(f"{recipe} has a test error of {test_error:.2f}: a network that has not learned its task "
                         "is no example of its kind; train it longer")
    worse = {name: np.stack([degrade(curve, name, recipe.seed + place) for place, curve in enumerate(curves)])
             for name in CONDITIONS}
    features = {}
    for length in {each.shape[-1] for each in worse.values()}:  # those of one length at a time: it is quicker
        names = [name for name in worse if worse[name].shape[-1] == length]
        features |= zip(names, curve_features(np.stack([worse[name] for name in names])), strict=True)
    return {"recipe": asdict(recipe), "kinked": recipe.kinked, "sharp": recipe.sharp,
            "max pooling": recipe.pooling == "max", "test_error": round(test_error, 4),
            "features": {name: [[float(f"{value:.3g}") for value in row] for row in features[name]]
                         for name in CONDITIONS}}


def make_bank(recipes, device="cpu") -> list[dict]:
    """Train every recipe and compute the features of its curves."""
    from smpcore.models.regressors import train
    found = []
    for recipe in smpcore.need("tqdm").tqdm(recipes, desc="training"):
        trained = train(recipe, device=device)
        found.append(bank_entry(recipe, watch(trained, _SAMPLES).numpy(), trained.test_error))
    return found


@checked(head=one_of(HEADS), conditions=several(one_of(CONDITIONS), f": choose among {', '.join(CONDITIONS)}"),
         bank=_BANK)
def table(bank: list[dict], head: str, conditions=tuple(CONDITIONS)) -> tuple[np.ndarray, Judged]:
    """Features (C, F), and the network and path of each, one row for each curve; the probabilities are still NaN.

    Sharp networks are left out; for ``"max pooling"`` so are those with a smooth activation, because the question
    is whether a ReLU network has max pooling.
    """
    rows, columns = [], []
    for place, entry in enumerate(bank):
        if entry["sharp"] or (head == "max pooling" and "relu" not in entry["recipe"]["activation"]):
            continue
        for condition in conditions:
            rows += entry["features"][condition]
            columns += [(np.nan, int(entry[head]), place, path, condition) for path in range(PATHS)]
    if not rows:
        raise ValueError(f"bank: it has no network that the question of {head} is asked of")
    return np.array(rows), Judged(*(np.array(column) for column in zip(*columns, strict=True)))


def fit(bank: list[dict]) -> dict:
    """The classifier as plain numbers: ranges and scales of the features, and one logistic regression a head."""
    heads = {}
    for head in HEADS:
        rows, curves = table(bank, head)
        heads[head] = _fit_one(rows, curves.truth)
    return {"features": list(FEATURES), "heads": heads}


@checked(folds=whole(2))
def cross_validate(bank: list[dict], head: str, *, known_path: bool = False, folds: int = 5) -> Judged:
    """Probabilities for networks that were held out: all curves of a network are in the same fold.

    Parameters
    ----------
    bank
        As `make_bank` gives it.
    head
        ``"kinked"`` or ``"max pooling"``.
    known_path
        Whether the classifier is fitted to other networks on the path that is judged. By default that path is held
        out too, because a user's path is not among those of the bank.
    folds
        Parts that the networks are divided into.

    Returns
    -------
    Judged
        All curves under all conditions; the training part has all conditions, as the shipped classifier has.
    """
    rows, curves = table(bank, head)
    split = smpcore.need("sklearn.model_selection").StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for train, test in split.split(rows, curves.truth, curves.network):
        for path in [None] if known_path else range(PATHS):
            held = test if known_path else test[curves.path[test] == path]
            seen = train if known_path else train[curves.path[train] != path]
            curves.probability[held] = probability(_fit_one(rows[seen], curves.truth[seen]), rows[held])
    return curves


@checked(judged=_JUDGED)
def averaged(judged: Judged) -> Judged:
    """One entry for each network and condition, its log odds the mean over the network's curves; ``path`` is -1."""
    odds = np.log(judged.probability / (1 - judged.probability))
    found = []
    for network, condition in sorted(set(zip(judged.network.tolist(), judged.condition.tolist(), strict=True))):
        own = (judged.network == network) & (judged.condition == condition)
        found.append((1 / (1 + np.exp(-odds[own].mean())), judged.truth[own][0], network, -1, condition))
    return Judged(*(np.array(column) for column in zip(*found, strict=True)))


@checked(draws=whole(2), judged=_JUDGED._replace(
    holds=lambda judged: np.isfinite(judged.probability).all() and set(judged.truth) == {0, 1}))
def auc(judged: Judged, draws: int = 200) -> tuple[float, float]:
    """Area under the ROC curve and its standard error, by drawing networks, not curves, again with replacement."""
    draw, networks = np.random.default_rng(0), np.unique(judged.network)
    places = [np.flatnonzero(judged.network == network) for network in networks]
    found = []
    while len(found) < draws:
        chosen = np.concatenate([places[k] for k in draw.integers(len(networks), size=len(networks))])
        if len(np.unique(judged.truth[chosen])) == 2:
            found.append(_area(judged.where(chosen)))
    return _area(judged), float(np.std(found))


def _area(judged: Judged) -> float:
    """The share of pairs of a kinked and another curve in which the kinked one has the higher probability."""
    ranks, kinked = rankdata(judged.probability), judged.truth == 1
    count = int(kinked.sum())
    return float((ranks[kinked].sum() - count * (count + 1) / 2) / (count * (len(ranks) - count)))


def _fit_one(rows: np.ndarray, labels: np.ndarray) -> dict:
    linear_model = smpcore.need("sklearn.linear_model")
    low, high = rows.min(0), rows.max(0)
    mean, scale = rows.mean(0), rows.std(0) + 1e-9
    # Strong regularisation, because the rows come from few networks: with less the fit would depend on their paths.
    model = linear_model.LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=200,
                                            solver="newton-cholesky")
    model.fit(expand((rows - mean) / scale), labels)
    return {"low": low.tolist(), "high": high.tolist(), "mean": mean.tolist(), "scale": scale.tolist(),
            "coefficients": model.coef_[0].tolist(), "intercept": float(model.intercept_[0])}


def expand(scaled: np.ndarray) -> np.ndarray:
    """Features, and their products with the roughness (the last): noise changes what the others mean."""
    return np.concatenate([scaled, scaled * scaled[..., -1:]], axis=-1)


def logit(head: dict, rows: np.ndarray) -> np.ndarray:
    """(..., F) -> (...): log odds by one head of the classifier; features outside the range of its bank are clipped."""
    scaled = (np.clip(rows, head["low"], head["high"]) - head["mean"]) / np.array(head["scale"])
    return expand(scaled) @ np.array(head["coefficients"]) + head["intercept"]


def probability(head: dict, rows: np.ndarray) -> np.ndarray:
    """(..., F) -> (...): the same as a probability."""
    return 1 / (1 + np.exp(-logit(head, rows)))
