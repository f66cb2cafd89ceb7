"""Why a recorded curve jerks, from its samples alone."""

import numpy as np
import pytest
import torch

from smpcore import diagnosis

pytestmark = pytest.mark.numeric

T = np.arange(0, 10, 1 / 30)
RNG = np.random.default_rng(0)
CURVES = {
    "kinks": np.abs(np.sin(T)) + 0.1 * T,
    "noise": np.sin(T) + 0.01 * RNG.normal(size=len(T)),
    "value jumps": np.round(10 * np.sin(T)) / 10,
    "motion": np.sin(T),
    "too coarse": np.cumsum(np.cumsum(RNG.normal(size=len(T)))),  # a slope that is a random walk
}


@pytest.mark.parametrize("cause", CURVES)
def test_a_curve_is_told_by_its_samples(cause):
    found = diagnosis.diagnose_curve(CURVES[cause], 30.0)
    assert found.cause == cause
    assert diagnosis.curves._WORDS[cause][0] in str(found)


def test_white_noise_grows_by_the_square_of_the_rate_and_a_smooth_curve_not_at_all():
    noise = diagnosis.diagnose_curve(RNG.normal(size=4000), 30.0)
    # Each of the two sums has a relative standard error of 2 % at most.
    assert noise.growth == pytest.approx(2, abs=0.1)
    assert diagnosis.diagnose_curve(CURVES["motion"], 30.0).growth == pytest.approx(0, abs=0.02)


def test_measures_that_depend_on_the_rate_are_given_at_three():
    found = diagnosis.diagnose_curve(torch.from_numpy(CURVES["motion"]), 30.0)
    assert [row["rate"] for row in found.rates] == pytest.approx([30, 15, 7.5])
    # Per frame², half the rate is four times the acceleration; the mean jerk per t³ stays.
    assert found.rates[1]["acceleration"] / found.rates[0]["acceleration"] == pytest.approx(4, rel=0.05)
    assert found.rates[1]["mean_jerk"] == pytest.approx(found.rates[0]["mean_jerk"], rel=0.05)
    assert found.verdict.verdict == "smooth"
    assert diagnosis.diagnose_curve(T[:60] ** 2, 30.0).rates[0]["log_dimensionless_jerk"] is not None
    assert diagnosis.diagnose_curve(np.arange(60.0), 30.0).rates[0]["log_dimensionless_jerk"] is None


@pytest.mark.parametrize(("signal", "rate", "says"), [
    (np.zeros((3, 50)), 30.0, r"a curve of shape \(3, 50\): \(N,\) with at least 40 samples"),
    (np.arange(39.0), 30.0, "at least 40 samples"),
    (np.ones(50), 30.0, "the curve is constant"),
    (np.arange(50.0), 0.0, "rate = 0.0: it must be a number above 0"),
    (np.full(50, np.nan), 30.0, "the signal is nan at index 0"),
])
def test_what_is_refused(signal, rate, says):
    with pytest.raises(ValueError, match=says):
        diagnosis.diagnose_curve(signal, rate)


def test_columns_are_read_from_files(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": CURVES["motion"], "name": "a"})
    frame.to_csv(tmp_path / "one.csv", index=False)
    frame.assign(y=1).to_csv(tmp_path / "two.tsv", index=False, sep="\t")
    np.save(tmp_path / "two.npy", np.stack([T, CURVES["noise"]], 1))
    read = diagnosis.read_curve
    np.testing.assert_allclose(read(tmp_path / "one.csv"), CURVES["motion"])
    np.testing.assert_allclose(read(tmp_path / "two.tsv", "x"), CURVES["motion"])
    np.testing.assert_allclose(read(tmp_path / "two.npy", "1"), CURVES["noise"])
    for file, column, says in [("two.tsv", None, "has these columns of numbers: x, y; name one with --column"),
                               ("one.csv", "z", "'z' is none of them"), ("no.csv", None, "cannot be read"),
                               ("one.txt", None, r"a curve is read from \.csv, \.tsv, \.parquet, \.npy")]:
        with pytest.raises(ValueError, match=says):
            read(tmp_path / file, column)
