"""The bank of trained networks' features, and the classifier fitted to it; needs scikit-learn.

The bank holds, for every network, the features of its curves as they are and as a user may meet them: with
noise, rounded to few bits, with fewer samples.
"""

import numpy as np

from smpcore._curve_features import FEATURES, curve_features

__all__ = ["CONDITIONS", "HEADS", "bank_entry", "cross_validate", "degrade", "fit", "make_bank", "table"]

#: (noise as a share of the curve's deviation, bits or 0, take every so many samples of 2,001), by name.
CONDITIONS = {
    "clean": (0.0, 0, 1),
    "noise 1e-5": (1e-5, 0, 1), "noise 1e-4": (1e-4, 0, 1), "noise 1e-3": (1e-3, 0, 1),
    "noise 1e-2": (1e-2, 0, 1),
    "16 bits": (0.0, 16, 1), "14 bits": (0.0, 14, 1), "12 bits": (0.0, 12, 1), "10 bits": (0.0, 10, 1),
    "8 bits": (0.0, 8, 1),
    "1,001 samples": (0.0, 0, 2), "501 samples": (0.0, 0, 4), "251 samples": (0.0, 0, 8),
}
#: The two questions: can anything in the network kink, and, where it can, is there max pooling.
HEADS = ("kinked", "max pooling")
_SAMPLES = 2001
# Test error, in standard deviations of the truth, above which a network has not learned its task.
_LEARNED = 0.5


def degrade(curve: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """A curve (N,) as a condition of `CONDITIONS` leaves it."""
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

    Raises
    ------
    ValueError
        For a network that has not learned its task (a test error over 0.5, where 1 is a constant answer).
    """
    if not test_error < _LEARNED:
        raise ValueError(f"{recipe} has a test error of {test_error:.2f}: a network that has not learned its task "
                         "says nothing of its family; train it longer")
    features = {
        name: [[float(f"{value:.4g}") for value in curve_features(degrade(curve, name, recipe.seed + place))]
               for place, curve in enumerate(curves)] for name in CONDITIONS}
    return {"recipe": recipe.as_dict(), "kinked": recipe.kinked, "sharp": recipe.sharp,
            "max pooling": recipe.pooling == "max", "test_error": round(test_error, 4), "features": features}


def make_bank(recipes, device="cpu") -> list[dict]:
    """Train every recipe and keep what its curves look like."""
    from tqdm import tqdm

    from smpcore.training import train
    found = []
    for recipe in tqdm(recipes, desc="training"):
        trained = train(recipe, device=device)
        found.append(bank_entry(recipe, trained.curves(_SAMPLES)[0].numpy(), trained.test_error))
    return found


def table(bank: list[dict], head: str, conditions=("clean",)):
    """Features (n, F), labels (n,) and the number of the network (n,), one row for each curve.

    Sharp networks are left out; for ``"max pooling"`` so are those whose activation cannot kink, for there
    the question is whether a ReLU network pools by maximum.
    """
    rows, labels, groups = [], [], []
    for place, entry in enumerate(bank):
        if entry["sharp"] or (head == "max pooling" and "relu" not in entry["recipe"]["activation"]):
            continue
        for condition in conditions:
            rows += entry["features"][condition]
            labels += [entry[head]] * len(entry["features"][condition])
            groups += [place] * len(entry["features"][condition])
    return np.array(rows), np.array(labels, dtype=int), np.array(groups)


def fit(bank: list[dict]) -> dict:
    """The classifier as plain numbers: ranges and scales of the features, and one logistic regression a head."""
    heads = {}
    for head in HEADS:
        rows, labels, _ = table(bank, head, CONDITIONS)
        heads[head] = _fit_one(rows, labels)
    return {"features": list(FEATURES), "heads": heads}


def cross_validate(bank: list[dict], head: str, condition: str = "clean", folds: int = 5):
    """Probabilities for networks that were held out: every curve of a network is on one side of the cut.

    Parameters
    ----------
    bank
        As `make_bank` gives it.
    head
        ``"kinked"`` or ``"max pooling"``.
    condition
        What is tested; the training part has all conditions, as the shipped classifier has.
    folds
        Parts that the networks are dealt into.

    Returns
    -------
    tuple of ndarray
        Probabilities, labels and the networks' numbers, one for each curve of the condition.
    """
    from sklearn.model_selection import StratifiedGroupKFold
    everything, labels, groups = table(bank, head, CONDITIONS)
    test, truth, owner = table(bank, head, (condition,))
    found = np.empty(len(test))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for train, _ in split.split(everything, labels, groups):
        held = ~np.isin(owner, groups[train])
        if held.any():
            found[held] = probability(_fit_one(everything[train], labels[train]), test[held])
    return found, truth, owner


def _fit_one(rows: np.ndarray, labels: np.ndarray) -> dict:
    from sklearn.linear_model import LogisticRegression
    low, high = rows.min(0), rows.max(0)
    mean, scale = rows.mean(0), rows.std(0) + 1e-9
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=5000)
    model.fit(expand((rows - mean) / scale), labels)
    return {"low": low.tolist(), "high": high.tolist(), "mean": mean.tolist(), "scale": scale.tolist(),
            "coefficients": model.coef_[0].tolist(), "intercept": float(model.intercept_[0])}


def expand(scaled: np.ndarray) -> np.ndarray:
    """Features, and their products with the roughness (the last): noise changes what the others mean."""
    return np.concatenate([scaled, scaled * scaled[..., -1:]], axis=-1)


def probability(head: dict, rows: np.ndarray) -> np.ndarray:
    """(..., F) -> (...): what one head of the classifier says; features outside what it has seen are clipped."""
    scaled = (np.clip(rows, head["low"], head["high"]) - head["mean"]) / np.array(head["scale"])
    return 1 / (1 + np.exp(-(expand(scaled) @ np.array(head["coefficients"]) + head["intercept"])))
