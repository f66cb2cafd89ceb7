"""SMP from samples: near the truth where it is known, exact in its laws, and plain about bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smpcore import find_kinks, signals, smp
from smpcore.metric import estimator
from smpcore.metric.arrays import AT_ONCE

pytestmark = pytest.mark.numeric

DURATION = 20.0
# Arbitrary signals jump, which is said; the laws hold all the same.
pytestmark = pytest.mark.filterwarnings("ignore::smpcore.metric.ValueJumpWarning")


def drawn(kernel, samples, count, *, kinks, seed=0, noise=0.0, **parameters):
    """Signals, the truth about them, and their spacing."""
    smooth = signals.gaussian_process(kernel, samples, DURATION, count=count, seed=seed, **parameters)
    hinged = signals.hinge_signals(smooth.times, kinks, count=count, seed=seed + 1)
    values = smooth.values + hinged.values
    source = torch.Generator().manual_seed(seed + 2)
    values = values + noise * torch.randn(values.shape, generator=source, dtype=values.dtype)
    return values, hinged, DURATION / (samples - 1)


LENGTHS = [{"length_scale": 0.5}, {"length_scale": (2.0, 0.5)}]
# kernel, parameters, samples: how far the mean ratio to the truth may be off, and the ratio's deviation. The
# goals are 1, 2, 6% of bias and 2, 4, 8% of spread; a mean over 60 signals adds its own standard error.
TRUTH = [
    *[("rbf", parameters, *size) for parameters in LENGTHS
      for size in ((8001, 0.01, 0.02), (2001, 0.02, 0.04), (501, 0.06, 0.08))],
    ("matern72", {"length_scale": 0.5}, 8001, 0.01, 0.02),
    ("matern72", {"length_scale": 0.5}, 2001, 0.02, 0.04),
    ("matern52", {"length_scale": 0.5}, 8001, 0.01, 0.02),
    ("periodic", {"length_scale": 0.7, "period": 5.0}, 2001, 0.02, 0.04),
    ("periodic", {"length_scale": 0.7, "period": 5.0}, 501, 0.06, 0.08),
]


@pytest.mark.parametrize(("kernel", "parameters", "samples", "bias", "spread"), TRUTH)
def test_reads_the_truth(kernel, parameters, samples, bias, spread):
    values, truth, spacing = drawn(kernel, samples, 60, kinks=35, **parameters)
    ratio = smp(values, spacing) / truth.smp
    assert abs(ratio.mean() - 1) < bias + 2 * ratio.std() / 60**0.5
    assert ratio.std() < spread * (1 + 2 / 120**0.5)


SMOOTH = [({"length_scale": 0.5}, 0.0, 0.05), ({"length_scale": 2.0}, 0.0, 0.05),
          ({"length_scale": 0.5}, 1e-4, 1.0)]


@pytest.mark.parametrize(("parameters", "noise", "most"), SMOOTH)
def test_a_smooth_signal_has_next_to_none(parameters, noise, most):
    values, _, spacing = drawn("rbf", 8001, 8, kinks=0, noise=noise, **parameters)
    assert smp(values, spacing).max() < most


def test_noise_is_met_by_a_longer_lag():
    values, truth, spacing = drawn("rbf", 32_001, 4, kinks=40, noise=1e-4, length_scale=0.5)
    assert (smp(values, spacing) / truth.smp - 1).abs().max() < 0.15
    assert (smp(values, spacing, lag=1) / truth.smp).max() < 0.5


def test_find_kinks_finds_them_in_place():
    values, truth, spacing = drawn("rbf", 8001, 6, kinks=35, length_scale=0.5)
    for row, times, jumps in zip(values, truth.kink_times, truth.kink_jumps, strict=True):
        found = find_kinks(row, spacing)
        large = times[jumps.abs() > 0.2]
        assert ((large[:, None] - found.times).abs().amin(1) <= 2 * spacing).all()
        assert len(found.times) <= 1.5 * 35
        assert (found.times.diff() > 0).all()
        assert float(found.jumps.abs().sum()) == pytest.approx(float(smp(row, spacing)), rel=0.02)


@pytest.mark.parametrize("lag", ["auto", 1, 4])
def test_find_kinks_gives_time_and_signed_jump(lag):
    times = torch.linspace(0, DURATION, 2001, dtype=torch.float64)
    where, jumps = torch.tensor([4.003, 9.0, 15.996]), torch.tensor([1.5, -0.7, 0.25])
    values, _ = signals.hinges(times, where.to(torch.float64), jumps.to(torch.float64))
    found = find_kinks(values, 0.01, lag=lag)
    assert torch.allclose(found.times.float(), where, atol=1e-6)
    assert torch.allclose(found.jumps.float(), jumps, atol=1e-6)


def test_find_kinks_through_noise():
    times = torch.linspace(0, DURATION, 32_001, dtype=torch.float64)
    where, jumps = (torch.tensor(v, dtype=torch.float64) for v in ([3.0, 9.0, 16.0], [1.0, -0.8, 0.6]))
    values, _ = signals.hinges(times, where, jumps)
    values = values + 1e-4 * torch.randn(32_001, generator=torch.Generator().manual_seed(0))
    found = find_kinks(values, times[1])
    assert len(found.times) == 3
    assert torch.allclose(found.times, where, atol=0.02)
    assert torch.allclose(found.jumps, jumps, rtol=0.1)


@pytest.mark.parametrize("place", [0.5, 2.25, 57.5, 98.6])
def test_a_kink_near_an_end_is_read(place):
    times = torch.arange(101, dtype=torch.float64)
    kink = torch.tensor([place], dtype=torch.float64)
    values, _ = signals.hinges(times, kink, torch.ones_like(kink))
    # Beyond the first and last second difference nothing of a kink is seen.
    seen = min(1.0, place, 100 - place)
    assert float(smp(values)) == pytest.approx(seen, rel=1e-9)


# ---------------------------------------------------------------------------------------------------- laws

ANY_SIGNAL = arrays(np.float64, st.integers(16, 90), elements=st.floats(-100, 100, width=32))
# Drawn to the bit: a power of two costs no digits, so no decision near a threshold can change sides.
POWERS = st.integers(-20, 20).map(lambda k: 2.0**k)


@settings(deadline=None, max_examples=60)
@given(ANY_SIGNAL, POWERS, st.sampled_from([-1.0, 1.0]))
def test_scale(values, factor, sign):
    assert smp(sign * factor * values) == pytest.approx(factor * smp(values), rel=1e-9, abs=0)


@settings(deadline=None, max_examples=60)
@given(ANY_SIGNAL, POWERS)
def test_units_of_time(values, unit):
    assert smp(values, unit) == pytest.approx(smp(values) / unit, rel=1e-9, abs=0)


@settings(deadline=None, max_examples=60)
@given(ANY_SIGNAL)
def test_reversal(values):
    assert smp(values[::-1]) == pytest.approx(smp(values), rel=1e-9, abs=1e-9 * np.abs(values).max())


# A line with two corners, on few binary digits: its SMP is known, and is not 0.
HINGED = st.tuples(st.integers(8, 24), st.integers(36, 52), *[st.integers(1, 800)] * 2, st.integers(-800, 800))


def hinged(drawn_numbers):
    first, second, one, two, slope = drawn_numbers
    n = np.arange(60.0)
    return (slope * n + one * np.maximum(n - first, 0) - two * np.maximum(n - second, 0)) / 8, (one + two) / 8


@settings(deadline=None, max_examples=60)
@given(HINGED, st.integers(-1000, 1000))
def test_offset(numbers, offset):
    # Values and offsets of a few binary digits add without rounding: only the level changes.
    values, truth = hinged(numbers)
    assert smp(values) == pytest.approx(truth, rel=1e-9)
    assert smp(values + offset) == pytest.approx(truth, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(HINGED, st.floats(1e-3, 1e3), st.sampled_from([-1.0, 1.0]), st.floats(1e-3, 1e3))
def test_laws_on_kinks_that_are_known(numbers, factor, sign, unit):
    values, truth = hinged(numbers)
    assert smp(sign * factor * values, unit) == pytest.approx(factor * truth / unit, rel=1e-9)
    assert smp(values[::-1], unit) == pytest.approx(truth / unit, rel=1e-9)


@pytest.mark.parametrize("power", [-1000, -600, 500, 700, 1000])
def test_no_scale_is_too_large_or_too_small(power):
    values, _, spacing = drawn("rbf", 801, 3, kinks=10, length_scale=1.0)
    found = smp(torch.ldexp(values, torch.tensor(power)), spacing)
    assert torch.equal(torch.ldexp(found, torch.tensor(-power)), smp(values, spacing))
    kinks = find_kinks(torch.ldexp(values[0], torch.tensor(power)), spacing)
    assert float(torch.ldexp(kinks.jumps, torch.tensor(-power)).abs().sum()) == pytest.approx(
        float(smp(values[0], spacing)), rel=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_what_a_type_rounds_away_is_not_a_kink(kind):
    """A sine whose every sample is rounded: the noise that this makes is known from the type."""
    times = torch.linspace(0, 20, 2001, dtype=torch.float64)
    assert float(smp(torch.sin(times).to(kind), 0.01)) == 0


@pytest.mark.parametrize("law", [lambda z, h: (3.7 * z + 11, 3.7), lambda z, h: (-z.flip(-1), 1.0)])
def test_laws_on_long_signals_with_noise(law):
    values, _, spacing = drawn("rbf", 3001, 3, kinks=20, noise=1e-3, length_scale=0.5)
    changed, factor = law(values, spacing)
    assert torch.allclose(smp(changed, spacing), factor * smp(values, spacing), rtol=1e-9)


def test_a_smooth_function_adds_nothing_and_kinks_apart_add_up():
    times = torch.linspace(0, DURATION, 4001, dtype=torch.float64)
    one, two = (signals.hinges(times, torch.tensor(where, dtype=torch.float64),
                               torch.tensor(jumps, dtype=torch.float64))[0]
                for where, jumps in (([3.0, 11.0], [1.0, -2.0]), ([6.5, 15.2], [0.5, 0.25])))
    spacing = DURATION / 4000
    assert float(smp(one, spacing)) == pytest.approx(3.0, rel=1e-9)
    assert float(smp(one + torch.sin(times), spacing)) == pytest.approx(3.0, rel=1e-4)
    assert float(smp(one + two, spacing)) == pytest.approx(3.75, rel=1e-9)
    # Where kinks coincide, the sum of two signals has no more than both.
    assert float(smp(one - one / 2, spacing)) < float(smp(one, spacing) + smp(one / 2, spacing))


# ------------------------------------------------------------------------------- kinds, batches, devices

KINDS = [torch.float32, torch.float64, np.float32, np.float64]


@pytest.mark.parametrize("kind", KINDS)
def test_gives_back_what_it_got(kind):
    values, truth, spacing = drawn("rbf", 2001, 2, kinks=20, length_scale=1.0)
    given_kind = values.to(kind) if isinstance(kind, torch.dtype) else values.numpy().astype(kind)
    result, kinks = smp(given_kind, spacing), find_kinks(given_kind[0], spacing)
    assert type(result) is type(kinks.times) is type(given_kind)
    assert result.dtype == kinks.jumps.dtype == given_kind.dtype
    assert np.allclose(np.asarray(result), truth.smp.numpy(), rtol=0.1)


@pytest.mark.parametrize("level", [0.0, 3.0, -1e6])
def test_a_constant_has_none(level):
    assert float(smp(np.full(200, level))) == 0
    assert len(find_kinks(np.full(200, level)).times) == 0


@pytest.mark.parametrize("slope", [1.0, 0.3, -1e5])
def test_a_straight_line_has_none(slope):
    assert float(smp(slope * np.linspace(0, 1, 1000) + 0.7, 1e-3)) == 0


def test_a_batch_is_its_signals_one_by_one(monkeypatch):
    values, _, spacing = drawn("rbf", 801, 6, kinks=20, length_scale=1.0)
    values[1::2] += 1e-3 * torch.randn(3, 801, generator=torch.Generator().manual_seed(1))
    together = smp(values.reshape(2, 3, 801), spacing)
    alone = torch.stack([smp(row, spacing) for row in values])
    assert torch.allclose(together.flatten(), alone, rtol=1e-12)
    monkeypatch.setitem(AT_ONCE, "cpu", 1)
    assert torch.allclose(smp(values, spacing), alone, rtol=1e-12)


@pytest.mark.parametrize("lag", ["auto", 3])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_tensors_are_worked_on_as_arrays_are(noise, lag):
    """What runs on a GPU, on this processor: crowded kinks, noise, a staircase, a constant and a huge signal."""
    values, _, _ = drawn("rbf", 801, 6, kinks=60, noise=noise, length_scale=0.5)
    values[1], values[2], values[3] = values[1].round(decimals=1), 3.7, 1e200 * values[3]
    given = 2.0**-52, lag, 9, 5.0
    for there, here in zip(estimator._totals(values, *given), estimator._totals(values.numpy(), *given), strict=True):
        assert isinstance(there, torch.Tensor)
        np.testing.assert_allclose(there, here, rtol=1e-12)
    rounding, step = torch.full((1,), 2.0**-50, dtype=torch.float64), 1 if lag == "auto" else lag
    kinks = [estimator._gathered(*estimator._at_full_rate(row, error, step, 9, 5.0), step)
             for row, error in ((values[:1], rounding), (values[:1].numpy(), rounding.numpy()))]
    for there, here in zip(*kinks, strict=True):
        assert len(here) > 5
        np.testing.assert_allclose(there, here, rtol=1e-9)


def test_signals_in_columns_are_read_as_a_view():
    values, _, spacing = drawn("rbf", 401, 3, kinks=5, length_scale=1.0)
    columns = values.T.contiguous()
    assert torch.equal(smp(columns.T, spacing), smp(values, spacing))
    assert torch.equal(find_kinks(columns[:, 1], spacing).jumps, find_kinks(values[1], spacing).jumps)


def test_an_empty_batch_is_an_empty_result():
    assert smp(torch.zeros(0, 4, 50)).shape == (0, 4)


def test_the_signal_is_left_alone():
    values, _, spacing = drawn("rbf", 801, 2, kinks=20, length_scale=1.0)
    before = values.clone()
    smp(values, spacing)
    smp(values, spacing, lag=3)
    find_kinks(values[0], spacing)
    assert torch.equal(values, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_the_same_on_a_gpu(noise):
    values, _, spacing = drawn("rbf", 4001, 5, kinks=30, noise=noise, length_scale=0.5)
    there = smp(values.cuda(), spacing)
    assert there.is_cuda
    assert torch.allclose(there.cpu(), smp(values, spacing), rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 100, 500])
def test_no_single_signal_reads_far_above_the_truth(seed):
    values, truth, spacing = drawn("rbf", 32_001, 20, kinks=40, noise=1e-4, seed=seed, length_scale=0.5)
    ratio = smp(values, spacing) / truth.smp
    assert float((ratio - 1).abs().max()) < 0.15
    # Dense kinks beside an end, where a cubic reaches too far.
    times = torch.linspace(0, DURATION, 2001, dtype=torch.float64)
    source = torch.Generator().manual_seed(seed)
    where = (2 * torch.rand(200, generator=source, dtype=torch.float64)).sort().values
    jumps = torch.randn(200, generator=source, dtype=torch.float64)
    dense, _ = signals.hinges(times, where, jumps)
    assert float(smp(dense + torch.sin(3 * times), 0.01)) < float(jumps.abs().sum())


def test_it_is_never_negative():
    values, _, spacing = drawn("rbf", 2001, 200, kinks=0, length_scale=2.0)
    steps = torch.round(values * 64) / 64
    assert all(float(smp(steps, spacing, lag=lag).min()) >= 0 for lag in (1, 2, 4, 8, "auto"))
