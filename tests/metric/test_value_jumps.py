"""Jumps of a curve's value: found on staircases, not seen on curves that are continuous, and said by `smp`."""

import warnings

import numpy as np
import pytest
import torch

from smpcore import find_kinks, signals, smp
from smpcore.metric import ValueJumpWarning, jump_share

DURATION = 20.0


def smooth(samples, count=200, length_scale=0.5, kernel="rbf"):
    return signals.gaussian_process(kernel, samples, DURATION, count=count, length_scale=length_scale, seed=1)


def hinged(samples, kinks, count=200):
    drawn = smooth(samples, count)
    return drawn.values, signals.hinge_signals(drawn.times, kinks, count=count, seed=2)


def noise(samples, count=200):
    return torch.randn(count, samples, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


CONTINUOUS = {
    "smooth": lambda n: smooth(n).values,
    "as float32": lambda n: smooth(n).values.float(),
    "coarse": lambda n: smooth(n, length_scale=25 / n).values,
    "kinks alone": lambda n: hinged(n, 5)[1].values,
    "kinks": lambda n: sum(part if isinstance(part, torch.Tensor) else part.values for part in hinged(n, 40)),
    "dense kinks": lambda n: hinged(n, 400)[1].values,
    "maximum": lambda n: smooth(n, 800).values.view(4, 200, n).amax(0),
    "rectified": lambda n: (smooth(n).values - 1.5).relu(),
    "sharp bends": lambda n: torch.nn.functional.softplus(50 * smooth(n).values) / 50,
    "cusps": lambda n: (smooth(n, 1).times - torch.linspace(1, 19, 200, dtype=torch.float64)[:, None]).abs().sqrt(),
    "a little noise": lambda n: smooth(n).values + 1e-3 * noise(n),
    "noise": lambda n: noise(n),
    "random walks": lambda n: noise(n).cumsum(1),
    "random slopes": lambda n: noise(n).cumsum(1).cumsum(1),
}


@pytest.mark.parametrize("samples", [61, 101, 501, 2001])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_no_alarm_on_continuous_curves(name, samples):
    share = jump_share(CONTINUOUS[name](samples))
    # Found with 600 signals each: at most 0.5%, where 61 samples leave one interval for what rises and falls again.
    assert float((share > 0.002).double().mean()) <= 0.015
    assert float(share.mean()) < 0.003


@pytest.mark.parametrize("samples", [501, 2001, 8001, 32_001])
def test_a_staircase_is_all_jumps_at_every_length(samples):
    times = torch.linspace(0, DURATION, samples, dtype=torch.float64)
    stairs = torch.stack([torch.round(4 * torch.sin(times)) / 4, torch.sign(torch.sin(times + 0.3))])
    assert float(jump_share(stairs).min()) > 0.95
    with pytest.warns(ValueJumpWarning, match=r"2 of 2 signals jump in value \(metric.jump_share: up to 1 of"):
        smp(stairs, DURATION / (samples - 1))


@pytest.mark.parametrize("height", [1.0, 0.1])
@pytest.mark.parametrize("added", [0.0, 1e-3])
def test_the_share_is_that_of_the_steps(height, added):
    drawn = smooth(8001, 100)
    steps = height * signals.hinge_signals(drawn.times, 8, count=100, seed=2).slopes
    values = drawn.values + steps + added * noise(8001, 100)
    share, change = jump_share(values), steps.diff().abs()
    total = values.diff().abs().sum(1)
    assert (share <= change.sum(1) / total + 0.002).all()
    # Steps under 8 deviations of the noise's second differences are not counted, nor two within 3 intervals.
    seen = torch.where(change > 8 * 6**0.5 * added, change, 0).sum(1) / total
    assert float(share.sum() / seen.sum()) > 0.95


def test_dense_rounding_is_seen_where_steps_are_apart():
    """Three levels a sample are noise to anybody; one level in five samples is a staircase."""
    values = smooth(2001, 100).values
    assert float(jump_share(torch.round(values * 8) / 8).min()) > 0.9
    assert float((jump_share(torch.round(values * 64) / 64) > 0.002).double().mean()) > 0.9
    assert float(jump_share(torch.round(values * 4096) / 4096).max()) < 0.002


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, np.float32, np.float64])
def test_kind_shape_and_scale(kind):
    stairs = np.floor(np.linspace(0, 5.5, 300)) * np.array([[[1.0]], [[0.0]]]) + np.zeros((2, 3, 300))
    given = torch.from_numpy(stairs).to(kind) if isinstance(kind, torch.dtype) else stairs.astype(kind)
    share = jump_share(given)
    assert type(share) is type(given)
    assert share.dtype == given.dtype
    assert np.array_equal(np.asarray(share), [[1, 1, 1], [0, 0, 0]])
    assert np.allclose(np.asarray(jump_share(1e30 * given + 1e30)), np.asarray(share), atol=1e-6)
    assert jump_share(np.zeros((0, 300))).shape == (0,)


def test_find_kinks_warns_of_one_signal_and_points_at_the_call():
    with pytest.warns(ValueJumpWarning, match="the signal jumps in value.*SMP is not defined there") as seen:
        find_kinks(np.floor(np.linspace(0, 5.5, 300)))
    assert seen[0].filename == __file__
    with pytest.warns(ValueJumpWarning) as seen:
        smp(np.floor(np.linspace(0, 5.5, 300)))
    assert seen[0].filename == __file__


def test_without_jumps_nothing_is_said():
    values, kinks = hinged(2001, 40, 50)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        smp(values + kinks.values)
        find_kinks(kinks.values[0])
    assert not [str(warning.message) for warning in seen]


@pytest.mark.parametrize(("signal", "error", "sentence"), [
    (np.zeros(8), ValueError, "8 samples is too short for jumps of its value: at least 9"),
    (np.array([0.0] * 20 + [np.nan]), ValueError, "nan at index 20"),
    (np.float64(1.0), ValueError, "a single number"),
    (np.zeros(30, dtype=bool), TypeError, "not booleans"),
    (torch.zeros(30, dtype=torch.bool), TypeError, "not booleans"),
    ("stairs", TypeError, "not strings"),
])
def test_bad_input_gets_a_sentence(signal, error, sentence):
    with pytest.raises(error, match=sentence):
        jump_share(signal)
