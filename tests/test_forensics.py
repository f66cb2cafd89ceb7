"""The forensic tool: features without scale and speed, held-out networks, verdicts, refusals."""

import json
import re

import numpy as np
import pytest
import torch

from smpcore import forensics
from smpcore._forensics_bank import CONDITIONS, HEADS, bank_entry, cross_validate, degrade, fit, make_bank, table
from smpcore._suspects import recipes
from smpcore.training import Recipe

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


@pytest.mark.parametrize(("curve", "verdict"), [
    (kinked_curve(), "kinked"),
    (SMOOTH, "smooth"),
    (SMOOTH + 0.02 * np.random.default_rng(0).standard_normal(2001), "cannot tell"),
    (np.round(40 * SMOOTH) / 40, "cannot tell"),
])
def test_verdicts_on_curves_whose_kinks_are_known(curve, verdict):
    found = forensics.report(curve, TIMES[1])
    assert found.verdict == verdict, str(found)
    assert str(found).startswith(verdict)
    assert (found.max_pooling is None) == (verdict != "kinked")


def test_cannot_tell_says_what_is_missing():
    noisy = SMOOTH + 0.02 * np.random.default_rng(0).standard_normal(2001)
    assert "noise" in forensics.report(noisy).reason


def test_tensors_and_arrays_get_the_same_report():
    assert forensics.report(torch.from_numpy(SMOOTH)) == forensics.report(SMOOTH)


@pytest.mark.parametrize(("signal", "options", "error", "sentence"), [
    (np.ones(2001), {}, ValueError, "the signal is constant"),
    (SMOOTH[:200], {}, ValueError, "200 samples is too short to judge: at least 201"),
    (np.stack([SMOOTH, SMOOTH]), {}, ValueError, "one signal (N,) is judged at a time"),
    (np.where(TIMES == 0, np.nan, SMOOTH), {}, ValueError, "nan at index 0"),
    (SMOOTH, {"spacing": 0.0}, ValueError, "spacing = 0.0"),
    (SMOOTH, {"confidence": 1.0}, ValueError, "confidence = 1.0: it must lie between 0.5 and 1"),
    (SMOOTH + 1j, {}, TypeError, "real numbers, not complex"),
])
def test_refusals(signal, options, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        forensics.report(signal, **options)


def test_the_bank_has_sixty_networks_of_varied_widths_seeds_and_tasks():
    bank = forensics.bank()
    assert [entry["recipe"] for entry in bank] == [recipe.as_dict() for recipe in recipes()]
    assert len(bank) >= 60
    assert max(entry["test_error"] for entry in bank) < 0.5
    for name, least in (("channels", 3), ("task", 2), ("activation", 5), ("pooling", 3), ("seed", 60)):
        assert len({entry["recipe"][name] for entry in bank}) >= least


def test_held_out_networks_kinked_against_smooth():
    from sklearn.metrics import roc_auc_score
    found, truth, _ = cross_validate(forensics.bank(), "kinked")
    assert roc_auc_score(truth, found) >= 0.99


def test_of_the_sure_verdicts_nine_in_ten_are_right():
    found, truth = (np.concatenate(parts) for parts in zip(
        *(cross_validate(forensics.bank(), "kinked", name)[:2] for name in CONDITIONS), strict=True))
    sure = (found >= 0.9) | (found <= 0.1)
    assert ((found > 0.5) == truth)[sure].mean() >= 0.9


def test_a_network_is_never_on_both_sides_and_sharp_ones_on_neither():
    bank = forensics.bank()
    _, _, owners = table(bank, "kinked")
    assert not any(bank[place]["sharp"] for place in owners)
    _, _, owners = table(bank, "max pooling")
    assert all("relu" in bank[place]["recipe"]["activation"] for place in owners)


def test_the_shipped_classifier_is_the_one_its_bank_gives():
    shipped, again = forensics._shipped()["classifier"], fit(forensics.bank())
    assert shipped["features"] == again["features"]
    for head in HEADS:
        # The solver stops at a gradient of 1e-4: coefficients agree to that, not to the last digit.
        np.testing.assert_allclose(shipped["heads"][head]["coefficients"], again["heads"][head]["coefficients"],
                                   atol=1e-2)


def test_the_bank_is_made_alike_twice():
    recipe = Recipe("tanh", "max", steps=150, channels=4)
    assert make_bank([recipe]) == make_bank([recipe])


def test_a_network_that_learned_nothing_is_refused():
    with pytest.raises(ValueError, match=r"test error of 0\.80: a network that has not learned its task"):
        bank_entry(Recipe(), np.stack([SMOOTH, SMOOTH]), 0.8)


def test_eight_bits_leave_256_values():
    assert len(np.unique(degrade(SMOOTH, "8 bits", 0))) <= 256
    assert len(degrade(SMOOTH, "501 samples", 0)) == 501


def test_the_command_writes_a_classifier(tmp_path, monkeypatch):
    written = tmp_path / "forensics.json"
    monkeypatch.setattr("smpcore.forensics.make_bank", lambda recipes: forensics.bank()[:len(recipes)])
    monkeypatch.setattr("sys.argv", ["forensics", "--train", "--output", str(written)])
    threads = torch.get_num_threads()
    try:
        forensics._main()
    finally:
        torch.set_num_threads(threads)
    assert set(json.loads(written.read_text())) == {"classifier", "bank"}
