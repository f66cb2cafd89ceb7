"""The forensic tool: features without scale and speed, held-out networks, verdicts, refusals."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import torch

from smpcore import forensics, smp
from smpcore.forensics import __main__ as command
from smpcore.forensics.classifier import (
    HEADS,
    Judged,
    auc,
    averaged,
    bank_entry,
    cross_validate,
    degrade,
    fit,
    make_bank,
    probability,
    table,
)
from smpcore.forensics.features import FEATURES, curve_features
from smpcore.forensics.training import PATHS, recipes, watch
from smpcore.metric import ValueJumpWarning
from smpcore.models import mlp, reference_cnn, reference_line, regressors
from smpcore.models.regressors import Recipe, train
from smpcore.paths import circle, line

pytestmark = pytest.mark.numeric

# The names `report` and `features` of the room are those of its functions, not of the files.
judge, feature_file = (sys.modules[f"smpcore.forensics.{name}"] for name in ("report", "features"))
TIMES = np.linspace(0, 2 * np.pi, 2001)
SMOOTH = np.sin(TIMES) + 0.3 * np.cos(3 * TIMES)


def kinked_curve(count=60, seed=0):
    draw = np.random.default_rng(seed)
    places, jumps = draw.uniform(0.2, 6, count), draw.standard_normal(count)
    return SMOOTH + 0.1 * (np.maximum(TIMES[:, None] - places, 0) * jumps).sum(1)


def test_features_know_neither_scale_nor_offset_nor_sign():
    first, second = (forensics.features(curve) for curve in (kinked_curve(), -7 * kinked_curve() + 2))
    assert list(first) == list(forensics.FEATURES)
    for name, value in first.items():
        assert second[name] == pytest.approx(value, abs=1e-3), name


def test_the_verdict_knows_no_speed_and_its_smp_does():
    slow, fast = (forensics.report(kinked_curve(), spacing) for spacing in (1.0, 0.1))
    assert slow.kinked == fast.kinked
    assert fast.smp == pytest.approx(10 * slow.smp)


ONE_KINK = {size: SMOOTH + size * np.maximum(TIMES - 3.3, 0) for size in (0.1, 0.02)}
NOISY = SMOOTH + 0.02 * np.random.default_rng(0).standard_normal(2001)

WALK = np.random.default_rng(1).standard_normal(2001).cumsum()


@pytest.mark.parametrize(("curve", "verdict", "reason"), [
    (kinked_curve(), "kinked", "concentrated in kinks"),
    (np.abs((TIMES * 3) % 1 - 0.5), "kinked", "concentrated in kinks"),
    (SMOOTH, "smooth", "hardly any kinks"),
    (ONE_KINK[0.1], "cannot tell", "a few kinks stand out"),
    (ONE_KINK[0.02], "cannot tell", "a few kinks stand out"),
    (WALK.cumsum(), "cannot tell", "bending grows as the step shrinks"),
    (NOISY, "cannot tell", "noise or rounding"),
    (np.round(120 * SMOOTH) / 120, "cannot tell", "noise or rounding"),
    (2 * TIMES + 1, "cannot tell", "straight within its noise and rounding"),
    (1 + 1e-16 * np.arange(2001), "cannot tell", "straight within its noise and rounding"),
    (1.0 * (TIMES > 3), "cannot tell", "its values jump"),
    (np.sign(np.sin(5 * TIMES + 0.1)), "cannot tell", "its values jump"),
    ((3 * TIMES) % 1, "cannot tell", "its values jump"),
    (np.exp(-((TIMES - 3) / 0.01) ** 2), "cannot tell", "unlike anything it was trained on"),
])
def test_verdicts_on_curves_whose_kinks_are_known(curve, verdict, reason):
    found = forensics.report(curve, TIMES[1])
    assert found.verdict == verdict, str(found)
    assert reason in found.reason
    assert str(found).startswith(f"{verdict}: ")
    assert (found.max_pooling is None) == (verdict != "kinked")


def test_sharp_bends_without_a_kink_are_not_called_kinked():
    row = curve_features(kinked_curve())
    row[[FEATURES.index("kinks_1"), FEATURES.index("lag_auto")]] = -4.0
    assert forensics.verdict(0.99, row[None]) == ("cannot tell", "it bends sharply, but no sample shows a kink")
    assert forensics.verdict(0.99, curve_features(NOISY)[None])[1].startswith("too much noise")
    assert forensics.verdict(0.6, row[None])[1].startswith("it is like curves of either kind")


def test_a_relu_network_between_two_kinks_is_not_called_smooth():
    start, end = reference_line()
    times = torch.linspace(0, 1e-4, 2001, dtype=torch.float64)
    with torch.no_grad():
        curve = reference_cnn().double()(line(start, end)(times))[:, 0]
    assert "a ReLU network between two kinks looks the same" in forensics.report(curve, 5e-8).reason


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_network_of_elu_is_not_called_kinked(seed):
    with torch.no_grad():
        curve = mlp(8, 1, width=64, depth=2, activation="elu", seed=seed).double()(circle(8, seed=2)(
            torch.from_numpy(TIMES)))[:, 0]
    assert forensics.report(curve, TIMES[1]).verdict != "kinked"


def test_several_curves_of_a_network_are_judged_together():
    curves = np.stack([kinked_curve(120, seed=1), kinked_curve(120, seed=2), 2 * TIMES])
    found = forensics.report(curves, TIMES[1])
    assert (found.verdict, found.judged, found.curves) == ("kinked", 2, 3)
    odds = [np.log(each / (1 - each)) for each in (forensics.report(curve, TIMES[1]).kinked for curve in curves[:2])]
    assert np.log(found.kinked / (1 - found.kinked)) == pytest.approx(np.mean(odds), rel=1e-6)
    assert found.smp == pytest.approx(np.mean([forensics.report(curve, TIMES[1]).smp for curve in curves]))
    assert str(found).endswith("2 of 3 curves were fit to be judged")


def test_the_text_says_what_confidence_was_asked_for():
    found = forensics.report(kinked_curve(), TIMES[1], confidence=0.99)
    assert found.confidence == 0.99
    assert "0.99 was asked for" in str(found)
    assert "max pooling with probability" in str(forensics.report(kinked_curve(), TIMES[1]))
    assert "probability" not in str(forensics.report(NOISY))


def test_any_scale_and_type_gets_a_verdict():
    for scale in (1e-300, 1e300):
        assert forensics.report(scale * SMOOTH).kinked == pytest.approx(forensics.report(SMOOTH).kinked, abs=1e-6)
    assert forensics.report(torch.from_numpy(SMOOTH).to(torch.bfloat16)).verdict == "cannot tell"


def test_tensors_and_arrays_get_the_same_report():
    assert forensics.report(torch.from_numpy(SMOOTH)) == forensics.report(SMOOTH)
    several = np.stack([SMOOTH, kinked_curve()])
    assert forensics.report(torch.from_numpy(several.T.copy()).T) == forensics.report(several.T.copy().T)


@pytest.mark.parametrize(("signal", "options", "error", "sentence"), [
    (np.ones(2001), {}, ValueError, "the signal is constant"),
    (np.stack([SMOOTH, np.ones(2001)]), {}, ValueError, "curve 1 is constant"),
    (SMOOTH[:200], {}, ValueError, "200 samples is too short to judge: at least 201"),
    (SMOOTH[:13], {}, ValueError, "13 samples is too short to judge: at least 201"),
    (SMOOTH[:3].tolist(), {}, ValueError, "3 samples is too short to judge: at least 201"),
    (SMOOTH[None, None], {}, ValueError, "one curve (N,) or several of one network (m, N)"),
    (SMOOTH[None][:0], {}, ValueError, "there is no curve in a signal of shape (0, 2001)"),
    (np.where(TIMES == 0, np.nan, SMOOTH), {}, ValueError, "nan at index 0"),
    (SMOOTH, {"spacing": 0.0}, ValueError, "spacing = 0.0"),
    (SMOOTH, {"confidence": 1.0}, ValueError, "confidence = 1.0: it must lie between 0.5 and 1"),
    (SMOOTH, {"confidence": "0.9"}, TypeError, "confidence = '0.9': it must be a number between 0.5 and 1"),
    (SMOOTH, {"confidence": None}, TypeError, "confidence = None: it must be a number"),
    (SMOOTH + 1j, {}, TypeError, "real numbers, not complex"),
    ([SMOOTH.tolist(), [1.0]], {}, TypeError, "a signal is an array of one shape"),
])
def test_refusals(signal, options, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        forensics.report(signal, **options)


def test_features_are_those_of_one_curve():
    with pytest.raises(ValueError, match=r"features are read from one curve \(N,\), not from 2"):
        forensics.features(np.stack([SMOOTH, kinked_curve()]))


@pytest.mark.parametrize("change", [{"version": 1}, {"features": ["kinks_1"]}])
def test_a_file_made_for_other_features_is_refused(tmp_path, monkeypatch, change):
    content = {"version": judge._VERSION, "bank": [], "classifier": {"features": list(FEATURES)}}
    content |= {"classifier": change} if "features" in change else change
    (tmp_path / "forensics.json").write_text(json.dumps(content))
    monkeypatch.setattr(judge, "DATA", tmp_path / "forensics.json")
    with pytest.raises(ValueError, match=r"made for other features than these: make it again by `python -m"):
        judge._shipped.__wrapped__()


def test_the_bank_has_sixty_networks_of_varied_widths_seeds_and_tasks():
    bank = forensics.bank()
    assert [entry["recipe"] for entry in bank] == [dataclasses.asdict(recipe) for recipe in recipes()]
    assert len(bank) >= 60
    assert max(entry["test_error"] for entry in bank) < 0.5
    for name, least in (("channels", 3), ("task", 2), ("activation", 6), ("pooling", 3), ("seed", 60)):
        assert len({entry["recipe"][name] for entry in bank}) >= least


@pytest.mark.parametrize("known_path", [True, False])
def test_held_out_networks_kinked_against_smooth(known_path):
    judged = cross_validate(forensics.bank(), "kinked", known_path=known_path)
    area, error = auc(judged.where(judged.condition == "clean"))
    assert area >= 0.99
    assert 0 <= error < 0.01
    sure = (judged.probability >= 0.9) | (judged.probability <= 0.1)
    assert ((judged.probability > 0.5) == judged.truth)[sure].mean() >= 0.9


def test_max_pooling_is_told_better_than_by_chance_and_never_surely():
    """What the text of a report calls a hint: were it surer, it would have to be calibrated."""
    judged = cross_validate(forensics.bank(), "max pooling")
    clean = judged.where(judged.condition == "clean")
    assert auc(clean)[0] > 0.5
    assert np.maximum(clean.probability, 1 - clean.probability).max() < 0.95


def test_the_area_and_its_error_against_a_case_by_hand():
    judged = Judged(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), np.arange(4), np.zeros(4, dtype=int),
                    np.array(["clean"] * 4))
    area, error = auc(judged)
    assert area == 0.75  # three of the four pairs stand in order
    # Of the mean of four such pairs: between that of independent pairs, √(3/16)/2, and twice as much.
    assert 0.2 < error < 0.45
    pairs = averaged(judged._replace(network=np.array([0, 0, 1, 1])))
    odds = [np.log(p / (1 - p)) for p in (0.1, 0.4)]
    assert pairs.probability[0] == pytest.approx(1 / (1 + np.exp(-np.mean(odds))))
    assert pairs.truth.tolist() == [0, 1]


def test_a_path_that_is_held_out_is_not_learned_from(monkeypatch):
    from smpcore.forensics import classifier
    seen = []
    monkeypatch.setattr(classifier, "_fit_one", lambda rows, labels: seen.append(len(rows)))
    monkeypatch.setattr(classifier, "probability", lambda head, rows: np.full(len(rows), len(rows)))
    rows, _ = table(forensics.bank(), "kinked")
    held = cross_validate(forensics.bank(), "kinked")
    assert not np.isnan(held.probability).any()
    # Five parts of the networks, four paths: each fit has three quarters of four fifths, each judges the rest.
    assert len(seen) == 5 * PATHS
    assert sum(seen) == pytest.approx(len(rows) * PATHS * 3 / 4 * 4, rel=0.01)
    assert sorted(set(np.round(held.probability / len(rows), 2))) == [0.05]


def test_a_network_is_never_on_both_sides_and_sharp_ones_on_neither():
    bank = forensics.bank()
    assert not any(bank[place]["sharp"] for place in table(bank, "kinked")[1].network)
    assert all("relu" in bank[place]["recipe"]["activation"] for place in table(bank, "max pooling")[1].network)


def test_the_shipped_classifier_is_the_one_its_bank_gives():
    shipped, again = judge._shipped()["classifier"], fit(forensics.bank())
    assert shipped["features"] == again["features"]
    for head in HEADS:
        # The solver stops at a gradient of 1e-4: coefficients agree to that, not to the last digit.
        np.testing.assert_allclose(shipped["heads"][head]["coefficients"], again["heads"][head]["coefficients"],
                                   atol=1e-2)


def test_the_bank_is_made_alike_twice():
    recipe = Recipe("tanh", "max", steps=150, channels=4, size=8)
    assert make_bank([recipe]) == make_bank([recipe])


# One network of the bank, softplus with max pooling: its weights are stored, after all its 700 steps and after 30.
AGAIN = 12
EARLY = dataclasses.replace(recipes()[AGAIN], steps=30)


@pytest.fixture(scope="module")
def weights(pytestconfig):
    """Its weights, by "trained" or "30 steps" and the name of the parameter."""
    return np.load(pytestconfig.rootpath / "tests" / "data" / f"bank_network_{AGAIN}.npz")


@pytest.fixture(scope="module")
def drawn(weights):
    """Its curves, drawn with the stored weights in float64: the same on every machine."""
    recipe = recipes()[AGAIN]
    model = regressors.regressor(recipe)
    model.load_state_dict({name: torch.from_numpy(weights[f"trained/{name}"]) for name in model.state_dict()})
    return recipe, watch(regressors.Trained(recipe, model.eval(), 0.0, 1.0), 2001).numpy()


def share_that_differs(recipe, curves):
    """Of the 936 features of a network, under 13 conditions, those that are off what is shipped by more than a
    twentieth of what they vary by in the bank.

    Most features are a logarithm of what is found above a threshold: a little rounding moves few of them, but those
    by much.
    """
    spread = table(forensics.bank(), "kinked")[0].std(0)
    again, shipped = bank_entry(recipe, curves, 0.0)["features"], forensics.bank()[AGAIN]["features"]
    return (np.stack([np.abs(np.array(shipped[name]) - again[name]) / spread for name in shipped]) > 0.05).mean()


def test_the_features_of_a_network_of_the_bank_are_those_that_are_shipped(drawn):
    """1 of 936 is off, for the shipped bank was trained on another machine, whose weights had other last digits."""
    assert share_that_differs(*drawn) < 0.005


@pytest.mark.parametrize(("change", "least"), [({"threshold": 5.5}, 0.2), ({"window": 11}, 0.15)])
def test_a_change_of_the_metric_is_seen_in_the_features(drawn, monkeypatch, change, least):
    """What the test above catches: a threshold raised by a tenth moves 27 % of the features, a wider window 22 %."""
    monkeypatch.setattr(feature_file, "smp", lambda *given, **more: smp(*given, **more, **change))
    assert share_that_differs(*drawn) > least


def furthest(weights):
    """By how much the weight that is furthest off differs from what is stored, after 30 steps of training here."""
    model = train(EARLY).model
    return max(float((part - torch.from_numpy(weights[f"30 steps/{name}"])).abs().max())
               for name, part in model.state_dict().items())


def test_a_network_of_the_bank_begins_its_training_as_it_did(weights):
    """On three instruction sets with 1, 2 and 4 threads no weight is off by more than 4e-6 after 30 steps. Rounding is
    magnified afterwards: to 3e-4 after 100 steps, and after 700 a quarter of the features may be others."""
    assert furthest(weights) < 5e-5


def test_a_change_of_the_training_is_seen_in_its_beginning(weights, monkeypatch):
    """A learning rate higher by a thousandth moves a weight by 5e-3."""
    monkeypatch.setattr(regressors, "_RATE", 1.001 * regressors._RATE)
    assert furthest(weights) > 1e-3


def test_a_network_of_the_bank_trained_again_is_judged_alike():
    """Its error stays within a tenth, the most that rounding moved it by in 25 networks of the bank: by 2e-3 of itself
    in this one. Other seeds have errors lower by a fifth and higher by a sixth."""
    (again,), shipped = make_bank([recipes()[AGAIN]]), forensics.bank()[AGAIN]
    assert again["recipe"] == shipped["recipe"]
    assert again["test_error"] == pytest.approx(shipped["test_error"], rel=0.1)
    rows = np.array(again["features"]["clean"])
    assert forensics.verdict(probability(judge._head("kinked"), rows).mean(), rows)[0] == "kinked"


def test_a_network_that_learned_nothing_is_refused():
    with pytest.raises(ValueError, match=r"test error of 0\.80: a network that has not learned its task"):
        bank_entry(Recipe(), np.stack([SMOOTH] * PATHS), 0.8)


def test_eight_bits_leave_256_values():
    assert len(np.unique(degrade(SMOOTH, "8 bits", 0))) <= 256
    assert len(degrade(SMOOTH, "501 samples", 0)) == 501


def test_the_command_writes_a_classifier_and_checks_it(tmp_path, monkeypatch, capsys):
    written = tmp_path / "forensics.json"
    monkeypatch.setattr("smpcore.forensics.__main__.make_bank", lambda recipes: forensics.bank()[:len(recipes)])
    monkeypatch.setattr("sys.argv", ["forensics", "--train", "--seeds", "2", "--output", str(written)])
    threads = torch.get_num_threads()
    try:
        command.main()
    finally:
        torch.set_num_threads(threads)
    content = json.loads(written.read_text(encoding="utf-8"))
    assert (content["version"], len(content["bank"])) == (judge._VERSION, 80)
    assert "max pooling, networks and paths held out: 0." in capsys.readouterr().out


def test_the_command_checks_what_is_shipped(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["forensics", "--check"])
    command.main()
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 5
    for line_ in told.splitlines()[1:]:
        assert re.search(r"held out: \d\.\d{3} ± \d\.\d{3}, four curves together \d\.\d{3} ± \d\.\d{3}$", line_)


def test_a_curve_that_jumps_is_warned_of_once():
    with pytest.warns(ValueJumpWarning) as given:
        said = forensics.report((20 * np.sin(np.linspace(0, 6, 2001))).round())
    assert said.verdict == "cannot tell"
    assert len(given) == 1
