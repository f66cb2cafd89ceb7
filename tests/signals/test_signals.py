"""The signals that everything is measured on: their moments, slopes and kinks, to sampling error."""

import math

import pytest
import torch

from smpcore import signals

pytestmark = pytest.mark.numeric

# kernel, its parameters
KERNELS = [
    ("rbf", {"length_scale": 0.5}),
    ("rbf", {"length_scale": (1.0, 0.3), "variance": (0.5, 1.5)}),
    ("matern72", {"length_scale": 0.5, "variance": 2.0}),
    ("matern52", {"length_scale": 0.7}),
    ("periodic", {"length_scale": 0.6, "period": 5.0}),
]
DURATION, COUNT = 20.0, 1500


@pytest.mark.parametrize(("kernel", "parameters"), KERNELS)
def test_moments_are_the_kernels(kernel, parameters):
    drawn = signals.gaussian_process(kernel, 401, DURATION, count=COUNT, seed=1, **parameters)
    lags = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
    wanted = signals.autocovariance(kernel, lags, **parameters)
    slope = signals.slope_variance(kernel, **parameters)
    for lag, expected in zip(lags, wanted, strict=True):
        shift = round(float(lag) / (DURATION / 400))
        # One product a signal, from a single pair of samples: independent draws, so their error is known.
        products = drawn.values[:, 100] * drawn.values[:, 100 + shift]
        assert abs(products.mean() - expected) < 4 * products.std() / math.sqrt(COUNT)
    squares = drawn.slopes[:, 200] ** 2
    assert abs(squares.mean() - slope) < 4 * squares.std() / math.sqrt(COUNT)


@pytest.mark.parametrize(("kernel", "parameters"), KERNELS)
def test_slope_variance_is_the_curvature_of_the_autocovariance(kernel, parameters):
    lag = torch.zeros((), dtype=torch.float64)
    step = 1e-4
    near = signals.autocovariance(kernel, lag + step, **parameters)
    curvature = 2 * (signals.autocovariance(kernel, lag, **parameters) - near) / step**2
    assert float(curvature) == pytest.approx(signals.slope_variance(kernel, **parameters), rel=1e-3)


@pytest.mark.parametrize(("kernel", "parameters"), [row for row in KERNELS if row[0] != "matern52"])
def test_slopes_are_the_values_derivative(kernel, parameters):
    drawn = signals.gaussian_process(kernel, 8001, DURATION, count=3, seed=2, **parameters)
    spacing = DURATION / 8000
    central = (drawn.values[:, 2:] - drawn.values[:, :-2]) / (2 * spacing)
    # Central differences err by h²/6 of the third derivative, which is below 1e4 for these lengths.
    assert (central - drawn.slopes[:, 1:-1]).abs().max() < 1e4 * spacing**2 / 6


def test_drawn_from_the_seed():
    first, again, other = (
        signals.gaussian_process("rbf", 301, 5.0, count=2, seed=seed).values for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_periodic_signal_ends_where_it_began():
    drawn = signals.gaussian_process("periodic", 401, 20.0, count=4, period=10.0, seed=0)
    assert torch.allclose(drawn.values[:, :201], drawn.values[:, 200:], atol=1e-10)


REFUSED = [
    ({"kernel": "exponential"}, "not smooth enough for a slope"),
    ({"kernel": "matern32"}, "no kink can be told from it"),
    ({"kernel": "rational_quadratic"}, "would wrap round"),
    ({"kernel": "rbf", "length_scale": 50.0}, "has not died out"),
    ({"kernel": "rbf", "length_scale": 1e-4}, "too short for samples"),
    ({"kernel": "sinc"}, "choose one of periodic, rbf"),
    ({"kernel": "periodic", "period": 7.0}, "whole number of periods"),
    ({"kernel": "periodic", "period": -1.0}, "positive period"),
    ({"kernel": "periodic", "length_scale": 1e-3}, "samples a period are too few"),
    ({"kernel": "rbf", "length_scale": (1.0, -2.0)}, "positive and finite"),
    ({"kernel": "rbf", "length_scale": (1.0, 2.0), "variance": (1.0, 2.0, 3.0)}, "2 length scales and 3 var"),
    ({"kernel": "rbf", "samples": 1}, "samples = 1: it must be at least 2"),
    ({"kernel": "rbf", "count": 0}, "count = 0: it must be at least 1"),
    ({"kernel": "rbf", "duration": 0.0}, "duration = 0.0: it must be positive and finite"),
    ({"kernel": "rbf", "device": "abacus"}, "abacus"),
]


REFUSED += [
    ({"kernel": kernel}, "is not known: choose one of") for kernel in (None, 3, ["rbf"], b"rbf")
] + [
    ({"length_scale": value}, "length_scale = .* it has to be positive and finite")
    for value in (0, -1.0, math.nan, math.inf, None, "0.5", True, [], [1.0, "2"], [[1.0]], 10**400)
] + [
    ({"variance": value}, "variance = .* it has to be positive and finite")
    for value in (0, math.nan, None, "1", [1.0, 0.0])
] + [
    ({"samples": value}, "samples = .*: it must be a whole number") for value in (2.5, math.nan, None, "9", True)
] + [
    ({"count": value}, "count = .*: it must be (a whole number|at least 1)") for value in (1.5, -3, None, [2])
] + [
    ({"duration": value}, "duration = .*: it must be positive and finite")
    for value in (-1.0, math.nan, math.inf, None, "20")
] + [
    ({"kernel": "periodic", "period": value}, "period = .* needs a positive period") for value in (0, math.nan, "5")
] + [
    ({"seed": value}, "seed = .*: a whole number of at most 64 bits") for value in (math.nan, 1.5, None, "1", 2**64)
] + [
    ({"length_scale": 1e-300}, "has to be positive and finite"), ({"duration": 1e-300}, "duration = "),
    ({"duration": 1e300}, "duration = "), ({"variance": 1e305}, "has to be positive and finite"),
    ({"kernel": "periodic", "length_scale": 1e-9}, "samples a period are too few"),
    ({"samples": 10**12}, "1 signals of 1000000000000 samples: one call draws at most 268,435,456 numbers"),
    ({"count": 10**9}, "one call draws at most"),
]
for row in REFUSED:
    row[0].setdefault("kernel", "rbf")


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_refused(changes, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        signals.gaussian_process(**{"samples": 101, "duration": 20.0, **changes})


def test_hinges_are_the_sum_of_their_ramps():
    times = torch.linspace(0, 20, 801, dtype=torch.float64)
    drawn = signals.hinge_signals(times, 12, count=3, jump_std=2.0, margin=1.0, seed=5)
    ramps = (times - drawn.kink_times[..., None]).clamp_min(0) * drawn.kink_jumps[..., None]
    assert torch.allclose(drawn.values, ramps.sum(1), atol=1e-12)
    assert torch.allclose(drawn.slopes, (drawn.kink_jumps[..., None] * (ramps != 0)).sum(1), atol=1e-12)
    assert torch.equal(drawn.smp, drawn.kink_jumps.abs().sum(1))
    assert drawn.kink_times.min() > 1
    assert drawn.kink_times.max() < 19


def test_no_hinges_is_a_flat_signal():
    drawn = signals.hinge_signals(torch.linspace(0, 1, 50, dtype=torch.float64), 0)
    assert drawn.values.abs().max() == 0


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"kinks": -1}, "kinks = -1: it must be at least 0"), ({"count": 0}, "count = 0: it must be at least 1"),
    ({"margin": 0.6}, "margin = 0.6 leaves no room between the margins of times from 0 to 1")])
def test_impossible_hinges_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        signals.hinge_signals(torch.linspace(0, 1, 9), **{"kinks": 3, **changes})


def test_hinges_need_a_time_for_every_jump():
    with pytest.raises(ValueError, match="one time and one jump"):
        signals.hinges(torch.linspace(0, 1, 9), torch.rand(3), torch.rand(4))


@pytest.mark.parametrize("velocity", [(1.0, 0.5), (0.0, 2.0)])
def test_moving_pictures_have_their_covariances(velocity):
    drawn = signals.moving_pictures(
        3, 2.0, height=2, width=3, count=3000, length_scale=1.5, velocity=velocity, variance=2.0, seed=6)
    value_cov, slope_cov = signals.picture_covariances(
        2, 3, length_scale=1.5, velocity=velocity, variance=2.0)
    for signal, wanted in ((drawn.values, value_cov), (drawn.slopes, slope_cov)):
        pixels = signal[:, 1].reshape(3000, 6)
        products = pixels[:, :, None] * pixels[:, None, :]
        error = products.std(0) / math.sqrt(3000)
        assert ((products.mean(0) - wanted).abs() < 4.5 * error).all()


def test_moving_pictures_drift_and_have_exact_slopes():
    drawn = signals.moving_pictures(2001, 4.0, height=4, width=3, velocity=(1.0, 0.0), seed=7)
    # After one unit of t the picture has moved by one pixel.
    assert torch.allclose(drawn.values[0, 500:, :-1], drawn.values[0, :-500, 1:], atol=1e-10)
    central = (drawn.values[:, 2:] - drawn.values[:, :-2]) / (2 * 4.0 / 2000)
    assert torch.allclose(central, drawn.slopes[:, 1:-1], atol=1e-5)


TIMES = torch.linspace(0, 1, 9)


@pytest.mark.parametrize(("kind", "changes", "sentence"), [
    *[(ValueError, {"jump_std": value}, "jump_std = .*finite number of at least 0")
      for value in (math.nan, math.inf, -1.0, None, "1", [1.0], 1e305)],
    *[(ValueError, {"margin": value}, "margin = .*finite number of at least 0") for value in (math.nan, -0.1, None)],
    *[(TypeError, {"kinks": value}, "kinks = .*: it must be a whole number")
      for value in (1.5, math.nan, None, "3", True)],
    *[(TypeError, {"count": value}, "count = .*: it must be a whole number") for value in (1.5, None)],
    *[(ValueError, {"seed": value}, "seed = ") for value in (math.nan, "a", -(2**64))],
    (ValueError, {"kinks": 10**12}, "1 signals of 9 samples and 1000000000000 kinks: one call draws at most"),
    *[(TypeError, {"times": value}, "times is a torch tensor of real numbers, not")
      for value in ([0, 1], None, 3.0, TIMES > 0.5, TIMES + 1j)],
    (ValueError, {"times": TIMES.flip(0)}, r"times \(9,\) has to be \(samples,\), at least two, and increase"),
    (ValueError, {"times": torch.zeros(2, 3)}, r"times \(2, 3\)"),
    (ValueError, {"times": torch.zeros(())}, r"times \(\)"),
    (ValueError, {"times": torch.zeros(1)}, r"times \(1,\)"),
    (ValueError, {"times": TIMES * math.nan}, "times holds NaN"),
])
def test_bad_hinges_get_a_sentence(kind, changes, sentence):
    with pytest.raises(kind, match=sentence):
        signals.hinge_signals(**{"times": TIMES, "kinks": 3, **changes})


@pytest.mark.parametrize(("kind", "call", "sentence"), [
    (TypeError, ([0.0, 1.0], TIMES, TIMES), "times is a torch tensor of real numbers, not list"),
    (TypeError, (TIMES, 0.5, TIMES), "kink_times is a torch tensor"),
    (TypeError, (TIMES, TIMES, TIMES + 1j), "kink_jumps is a torch tensor of real numbers, not torch.complex64"),
    (ValueError, (TIMES, TIMES * math.inf, TIMES), "kink_times holds NaN or infinity"),
    (ValueError, (TIMES[None], TIMES, TIMES), r"times \(1, 9\) has to be"),
    (ValueError, (TIMES, TIMES[0], TIMES[0]), r"kink_times \(\) \(..., kinks\)"),
])
def test_bad_ramps_get_a_sentence(kind, call, sentence):
    with pytest.raises(kind, match=sentence):
        signals.hinges(*call)


def test_hinges_of_mixed_types_are_computed_in_the_widest():
    values, slopes = signals.hinges(TIMES, torch.tensor([0.5], dtype=torch.float64), torch.tensor([2]))
    assert values.dtype == slopes.dtype == torch.float64
    assert float(values[-1]) == 1.0


@pytest.mark.parametrize("law", [lambda **more: signals.slope_variance(**more),
                                 lambda **more: signals.autocovariance(lags=TIMES, **more)])
@pytest.mark.parametrize("changes", [
    {"kernel": "sinc"}, {"kernel": None}, {"length_scale": 0}, {"length_scale": math.nan}, {"length_scale": "1"},
    {"variance": -1.0}, {"variance": None}, {"kernel": "periodic"}, {"kernel": "periodic", "period": math.inf},
])
def test_the_laws_refuse_what_cannot_be_drawn(law, changes):
    with pytest.raises(ValueError, match=r"is not known|it has to be positive and finite|needs a positive period"):
        law(**{"kernel": "rbf", "length_scale": 1.0, **changes})


def test_lags_are_a_tensor():
    with pytest.raises(TypeError, match="lags is a torch tensor of real numbers, not list"):
        signals.autocovariance("rbf", [0.0, 1.0], length_scale=1.0)


@pytest.mark.parametrize("changes", [
    {name: value} for name in ("height", "width") for value in (-1, 1.5, math.nan, None, "2", True)
] + [{name: value} for name in ("length_scale", "variance") for value in (-1.0, math.nan, math.inf, None, "2", [1.0])
     ] + [{"velocity": value} for value in (math.nan, 1.0, None, "ab", (1.0, math.nan), (1.0, math.inf), (1, 2, 3))])
def test_bad_pictures_get_a_sentence(changes):
    for draw in (lambda **more: signals.moving_pictures(11, 1.0, **more), signals.picture_covariances):
        with pytest.raises((TypeError, ValueError), match=f"{next(iter(changes))} = .*: it must be "):
            draw(**{"height": 2, "width": 2, **changes})


@pytest.mark.parametrize("changes", [{"samples": 10**9}, {"height": 10**9}, {"velocity": (1e12, 0.0)},
                                     {"length_scale": 1e-9}])
def test_pictures_too_large_are_refused_before_they_are_drawn(changes):
    with pytest.raises(ValueError, match="one call draws at most 268,435,456 numbers"):
        signals.moving_pictures(**{"samples": 11, "duration": 1.0, "height": 2, "width": 2, **changes})


def test_covariances_of_too_many_pixels_are_refused():
    with pytest.raises(ValueError, match="the covariances of 100000 by 100000 pixels: one call draws at most"):
        signals.picture_covariances(10**5, 10**5)


@pytest.mark.parametrize("changes", [{"height": 0}, {"length_scale": 0.0}, {"velocity": (1.0,)}])
def test_impossible_pictures_are_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} = .*: it must be "):
        signals.moving_pictures(11, 1.0, **{"height": 2, "width": 2, **changes})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_same_signals_on_a_gpu():
    here = signals.gaussian_process("rbf", 301, 5.0, count=2, seed=3)
    there = signals.gaussian_process("rbf", 301, 5.0, count=2, seed=3, device="cuda")
    assert there.values.is_cuda
    assert torch.equal(here.values, there.values.cpu())
