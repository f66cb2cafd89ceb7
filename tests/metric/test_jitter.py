"""Slope variation and the measures of pose and movement research: their definitions, and the frame rate in them."""

import math

import numpy as np
import pytest
import torch

from smpcore import metric, signals, smp
from smpcore.metric import acceleration_error, log_dimensionless_jerk, mean_jerk, slope_variation

KINDS = [torch.float32, torch.float64, np.float32, np.float64]
RATES = (50, 100, 200, 400, 800)  # frames per unit of t


def kinked(rate, count=40):
    """Piecewise-linear curves on [0, 10] with eight kinks each, which every rate resolves but for a few."""
    times = torch.linspace(0, 10, 10 * rate + 1, dtype=torch.float64)
    return signals.hinge_signals(times, 8, count=count, margin=0.1, seed=4)


def wave(rate):
    return torch.sin(torch.linspace(0, 10, 10 * rate + 1, dtype=torch.float64))


# ------------------------------------------------------------------------------------------ slope variation

@pytest.mark.parametrize("step", [None, 0.05, 0.1, 0.4])
def test_slope_variation_is_the_mean_over_frames_that_share_a_step(step):
    values = signals.gaussian_process("rbf", 401, 20.0, count=3, seed=0).values
    lag = 1 if step is None else round(step / 0.05)
    sums = [values[:, first::lag].diff(n=2).abs().sum(1) / (lag * 0.05) for first in range(lag)]
    torch.testing.assert_close(slope_variation(values, 0.05, step), sum(sums) / lag)


def test_of_a_piecewise_linear_curve_it_is_at_most_smp_and_reaches_it():
    drawn = kinked(100)
    for multiple in (1, 2, 5, 20, 100):
        assert (slope_variation(drawn.values, 0.01, multiple * 0.01) <= drawn.smp * (1 + 1e-9)).all()
    apart = (drawn.kink_times.diff(dim=1).amin(1) > 0.02)
    assert apart.any()
    torch.testing.assert_close(slope_variation(drawn.values, 0.01)[apart], drawn.smp[apart])


def test_it_tends_from_below_to_smp_and_the_integral_of_the_curvature():
    drawn = kinked(800, 5)
    bend = 2.0 * torch.sin(3 * drawn.times)
    # ∫|z″| of the bend is that of 18 |sin 3t| over [0, 10]: 2·18/3 a half wave, and what is left of the last one.
    halves = math.floor(30 / math.pi)
    integral = 6 * (2 * halves + 1 - math.cos(30 - halves * math.pi))
    readings = torch.stack([slope_variation(bend + drawn.values, 1 / 800, lag / 800) for lag in (64, 16, 8, 4, 2, 1)])
    assert (readings.diff(dim=0) >= -1e-9 * readings[:-1]).all()
    # At a kink only the two bends' difference is lost, of the order of the spacing.
    assert torch.allclose(readings[-1], drawn.smp + integral, rtol=0.01)
    assert float(slope_variation(bend, 1 / 800)) == pytest.approx(integral, rel=1e-3)
    assert float(smp(bend, 1 / 800)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measure", [slope_variation, mean_jerk, log_dimensionless_jerk,
                                     lambda z, h: acceleration_error(z, 0 * z, h)])
def test_kind_and_shape(measure, kind):
    values = kinked(50, 6).values.reshape(2, 3, -1)
    given = values.to(kind) if isinstance(kind, torch.dtype) else values.numpy().astype(kind)
    result = measure(given, 0.02)
    assert type(result) is type(given)
    assert result.dtype == given.dtype
    assert np.allclose(np.asarray(result), measure(values, 0.02).numpy(), rtol=2e-2)


def test_they_are_read_without_a_graph():
    values = wave(50).requires_grad_()
    assert not slope_variation(values).requires_grad
    assert not mean_jerk(values).requires_grad


# -------------------------------------------------------------------------------- definitions of the literature

def test_acceleration_error_is_the_mean_of_the_difference_of_accelerations():
    source = np.random.default_rng(0)
    one, other = source.normal(size=(2, 5, 30))
    accelerations = [z[:, 2:] - 2 * z[:, 1:-1] + z[:, :-2] for z in (one, other)]
    expected = np.abs(accelerations[0] - accelerations[1]).mean(1)
    np.testing.assert_allclose(acceleration_error(one, other), expected)
    np.testing.assert_allclose(acceleration_error(one, other, 0.5), 4 * expected)


def test_mean_jerk_of_a_cubic_is_its_third_derivative():
    assert float(mean_jerk(np.linspace(0, 2, 41) ** 3, 0.05)) == pytest.approx(6, rel=1e-9)


def test_log_dimensionless_jerk_of_the_authors_example():
    """exp(−5t²) at 100 Hz as a speed profile: −5.81636, printed beside the authors' own program."""
    speed = np.exp(-5 * np.arange(-1, 1, 0.01) ** 2)
    place = np.concatenate([[0], speed.cumsum() / 100])
    assert float(log_dimensionless_jerk(place, 0.01)) == pytest.approx(-5.81636, abs=5e-6)


def test_log_dimensionless_jerk_has_no_unit():
    values = kinked(50, 3).values
    torch.testing.assert_close(log_dimensionless_jerk(1e200 * values + 3, 7.0), log_dimensionless_jerk(values, 0.02))


# ------------------------------------------------------------------------------------- the frame rate in them

def test_what_the_frame_rate_does_on_a_kinked_curve():
    read = {rate: kinked(rate) for rate in RATES}
    total = read[800].smp
    accelerations = [acceleration_error(drawn.values, 0 * drawn.values, 1 / rate) for rate, drawn in read.items()]
    frames = [acceleration_error(drawn.values, 0 * drawn.values) for drawn in read.values()]
    jerks = torch.stack([mean_jerk(drawn.values, 1 / rate) for rate, drawn in read.items()])
    logs = torch.stack([log_dimensionless_jerk(drawn.values, 1 / rate) for rate, drawn in read.items()])
    # SMP over the duration; over the frames that have a second difference, two fewer.
    torch.testing.assert_close(accelerations[-1].mean(), (total / 10).mean(), rtol=0.02, atol=0)
    assert float(frames[-1].mean() / frames[0].mean()) == pytest.approx((50 / 800) ** 2, rel=0.1)
    # A kink a fraction α into its interval adds |1−α| + |2α−1| + |α| to the jerk, 3/2 on average.
    growth = jerks.mean(1)[1:] / jerks.mean(1)[:-1]
    assert torch.allclose(growth, torch.full_like(growth, 2.0), rtol=0.1)
    torch.testing.assert_close(jerks[-1].mean(), 1.5 * total.mean() * 800 / 10, rtol=0.05, atol=0)
    fall = logs.mean(1).diff()
    assert torch.allclose(fall, torch.full_like(fall, -3 * math.log(2)), rtol=0.15)


def test_what_the_frame_rate_does_on_a_smooth_curve():
    for measure in (slope_variation, mean_jerk, log_dimensionless_jerk, lambda z, h: acceleration_error(z, 0 * z, h)):
        few, many = (float(measure(wave(rate), 1 / rate)) for rate in (100, 800))
        assert few == pytest.approx(many, rel=0.02)
    assert float(acceleration_error(wave(800), 0 * wave(800))) == pytest.approx(
        float(acceleration_error(wave(100), 0 * wave(100))) / 64, rel=0.02)


# ----------------------------------------------------------------------------------------------- bad input

ROW = np.arange(12.0) ** 2.5
MEASURES = [slope_variation, mean_jerk, log_dimensionless_jerk, lambda z, h=1.0: acceleration_error(z, z, h)]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("error", "call", "sentence"), [
    (ValueError, (np.float64(3.0),), "a single number"),
    (ValueError, (ROW[:2],), "2 samples is too short for a"),
    (ValueError, (np.where(ROW > 50, np.inf, ROW),), "inf at index 5"),
    (ValueError, (ROW, 0.0), "spacing = 0.0: the distance between samples"),
    (ValueError, (ROW, math.nan), "spacing = nan"),
    (ValueError, (ROW, "1"), "spacing = '1'"),
    (TypeError, (ROW * 1j,), "not complex"),
    (TypeError, (ROW > 3,), "not booleans"),
    (TypeError, (None,), "not NoneType"),
])
def test_bad_input_gets_a_sentence(measure, error, call, sentence):
    with pytest.raises(error, match=sentence):
        measure(*call)


@pytest.mark.parametrize(("step", "sentence"), [
    (1.5, "step = 1.5 is 1.5 times the spacing 1.0: a whole multiple"), (0.5, "is 0.5 times the spacing"),
    (0, "step = 0: the distance"), (-1.0, "step = -1.0"), (math.inf, "step = inf"), ("2", "step = '2'"),
    (5.0, "12 samples is too short for a step of 5 samples: at least 15"),
])
def test_a_step_is_a_multiple_of_the_spacing_that_the_samples_hold(step, sentence):
    with pytest.raises(ValueError, match=sentence):
        slope_variation(ROW, 1.0, step)


def test_two_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"signal \(12,\) and truth \(11,\) differ in shape"):
        acceleration_error(ROW, ROW[1:])


@pytest.mark.parametrize("still", [np.zeros(20), np.arange(20.0), np.arange(20.0) ** 2])
def test_a_signal_without_jerk_has_no_logarithm_of_it(still):
    with pytest.raises(ValueError, match="signal has no jerk"):
        log_dimensionless_jerk(still)
    with pytest.raises(ValueError, match=r"signal \[1\] has no jerk"):
        log_dimensionless_jerk(np.stack([ROW, np.ones(12)]))


@pytest.mark.parametrize("measure", [slope_variation, mean_jerk, log_dimensionless_jerk])
def test_no_signals_give_no_results(measure):
    assert measure(np.zeros((0, 20))).shape == (0,)


def test_public_names_are_the_room_s():
    assert all(hasattr(metric, name) for name in metric.__all__)
