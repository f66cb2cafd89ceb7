"""A corner that no unit accounts for is warned of; curvature, coarse samples and gains beside a kink are not."""

import warnings

import pytest
import torch
from brute import values_and_slopes
from cases import ALL
from torch import nn
from torch.nn import functional as F

from smpcore import attribute, models, paths
from smpcore.attribution import SamplingWarning

pytestmark = pytest.mark.numeric

START, END = torch.linspace(-1, -0.7, 4, dtype=torch.float64), torch.linspace(2, 1.1, 4, dtype=torch.float64)


def measured(model, samples=101, line=(START, END), **options):
    return attribute(model, paths.line(*line), torch.linspace(0, 1, samples, dtype=torch.float64), **options)


CORNERS = {
    "a root of a square": lambda x: torch.sqrt(x * x),
    "a power of a square": lambda x: (x**2) ** 0.5,
    "a hypotenuse": lambda x: torch.hypot(x, torch.zeros_like(x)),
    "among units": lambda x: F.relu(x - 0.2) + torch.sqrt((x - 0.7) ** 2),
    "small, among curvature": lambda x: torch.tanh(x) + 0.02 * torch.sqrt((x - 0.7) ** 2),
}


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("samples", [41, 299])
def test_a_corner_that_no_unit_accounts_for_is_warned_of(name, samples):
    with pytest.warns(UserWarning, match=r"at t = 0\..* slope of output \d jumps by .* the total misses it"):
        measured(CORNERS[name], samples)


def test_the_jump_and_its_time_are_told():
    with pytest.warns(UserWarning, match=r"at t = 0\.333333333 the slope of output 0 jumps by 6,"):
        measured(lambda x: torch.sqrt(x * x)[:, :1])
    with pytest.warns(UserWarning, match="slope of output 0 jumps by 6,"):
        measured(lambda x: torch.sqrt(x * x)[:, :1], dtype=torch.float32)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_models_all_of_whose_units_are_followed_are_not(case):
    model, start, end = case.build(0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        for samples in (9, 67):
            measured(model, samples, (start, end))
    assert not seen, [str(warning.message) for warning in seen]


@pytest.mark.parametrize("steep", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("samples", [3, 12, 101])
def test_what_is_smooth_is_not_however_few_the_samples(steep, samples):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        for act in (torch.tanh, F.gelu, F.softplus, lambda x: F.elu(x), torch.sin):
            measured(lambda x, act=act: act(steep * net.double()(x)), samples)
    assert not seen, [str(warning.message) for warning in seen]


def test_kinks_on_samples_and_at_the_ends_of_a_path_are_not():
    line = torch.tensor([0.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        for unit in (torch.relu, lambda x: x.clamp(0.5, 1), lambda x: F.hardtanh(x, 0, 0.25), torch.abs,
                     lambda x: F.softshrink(x, 0.5), lambda x: torch.maximum(x, 1 - x), lambda x: F.relu(-x)):
            for chunk in (2, 3, 11):
                measured(unit, 11, line, chunk=chunk)
    assert not seen, [str(warning.message) for warning in seen]


def test_a_value_that_jumps_is_no_corner():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        for unit in (F.hardshrink, lambda x: x + torch.round(3 * x), lambda x: x.sign()):
            assert float(measured(unit).value_jumps[0]) > 0
    assert not seen, [str(warning.message) for warning in seen]


def test_a_path_that_fails_between_its_samples_is_left_alone():
    def model(x):
        return torch.tanh(9 * x) + torch.where(torch.tensor(len(x) == 17), torch.nan, 0.0)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        assert measured(model, chunk=40).total.tolist() == [0.0] * 4
    assert not seen, [str(warning.message) for warning in seen]


def _steep(factor, after):
    return lambda x: after(F.hardsigmoid(factor * x - 0.4567 * factor) - 0.5)


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("samples", [33, 65, 129, 2049])
def test_something_steep_between_two_samples_is_measured_by_itself(factor, samples):
    line = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = measured(_steep(factor, F.relu), samples, line)
    assert float(found.total) == pytest.approx(factor / 3, rel=1e-6)
    assert float(found.unexplained) < 1e-6 * factor
    assert found.slopes.shape == (samples, 1)


def test_what_is_too_steep_to_resolve_is_told():
    """Beyond what refining reaches: half the total is missing, and the result says so."""
    line = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"total of output 0, .* may be off by .* take more samples"):
        found = measured(lambda x: sum(_steep(1e5, F.relu)(x - part / 100) for part in range(-40, 50)), 20, line)
    truth = 90 * 1e5 / 3
    assert abs(float(found.total) - truth) < 3 * float(found.unexplained)
    assert float(found.unexplained) > 0.05 * float(found.total)


def test_the_doubt_is_about_what_a_coarse_measurement_is_off_by():
    model, path = models.reference_cnn(), paths.line(*models.reference_line())
    for samples in (33, 101):
        found = attribute(model, path, torch.linspace(0, 1, samples, dtype=torch.float64))
        off = abs(float(found.total) - models.REFERENCE_SMP)
        assert off < float(found.unexplained) < 0.05 * models.REFERENCE_SMP


#: On x from 0 to 1: units that switch there and back, and opposite kinks, on stretches down to 1/2500 of the path.
UNIT = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)


def _hats(count, width, seed, unit):
    centres = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.96 + 0.02
    return lambda x: unit((x - centres) / width).sum(1, keepdim=True) * width


def _cut_hat(u):
    return 2 * F.relu(F.relu(u + 1) - 2 * F.relu(u) + F.relu(u - 1) - 0.5)


def _network(depth, gain, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [gain * torch.randn(m, n, generator=generator, dtype=torch.float64) * (2 / n) ** 0.5
               for n, m in [(1, 48)] + [(48, 48)] * depth + [(48, 2)]]
    biases = [0.3 * torch.randn(48, generator=generator, dtype=torch.float64) for _ in weights]

    def model(x):
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = F.relu(F.linear(x, weight, bias))
        return F.linear(x, weights[-1])

    return model


def _crowded(seed):
    """A random program of hats, that may stand in a sum, in one of several outputs, or before a network."""
    count, width = (3, 40, 40, 150)[seed % 4], (0.02, 0.002, 0.0004)[seed % 3]
    hats = _hats(count, width, seed, _cut_hat if seed % 5 < 2 else lambda u: F.relu(1 - u.abs()))
    net = _network(1 + seed % 3, 1.0, seed)
    return (lambda x: x + hats(x), lambda x: net(x) + 20 * hats(x), lambda x: torch.cat([hats(x), net(x)], 1),
            lambda x: net(x + hats(x)))[seed % 7 % 4]


def dense_truth(model, samples=100_001):
    """SMP of a piecewise-linear model from slopes alone, kinks nearer than the spacing apart."""
    path = paths.line(*UNIT)
    times = torch.linspace(0, 1, samples, dtype=torch.float64)
    return values_and_slopes(model, path, times)[1].diff(dim=0).abs().sum(0)


@pytest.mark.parametrize("seed", range(14))
def test_what_switches_there_and_back_between_two_samples_is_found_or_told(seed):
    model = _crowded(seed)
    truth = dense_truth(model)
    for samples in (17, 101, 401):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = measured(model, samples, UNIT)
        told = any(issubclass(warning.category, SamplingWarning) for warning in seen)
        assert told or bool(((found.total - truth).abs() < 0.08 * truth).all()), (samples, found, truth)
        assert samples < 401 or bool((found.total > 0.5 * truth).all())


@pytest.mark.parametrize("samples", [101, 401])
def test_ordinary_networks_raise_no_false_alarm(samples):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", SamplingWarning)
        for depth, gain, seed in [(n % 5, (0.8, 1.0, 1.4)[n % 3], n) for n in range(15)]:
            measured(_network(depth, gain, seed), samples, UNIT)
        attribute(models.reference_cnn(), paths.line(*models.reference_line()),
                  torch.linspace(0, 1, samples, dtype=torch.float64))
    assert not [str(warning.message) for warning in seen if issubclass(warning.category, SamplingWarning)]


def test_a_second_look_stays_within_its_samples():
    seen = []

    def path(t):
        seen.append(len(t))
        return t[:, None]

    model, samples = _hats(4000, 1e-4, 0, _cut_hat), 33
    with pytest.warns(SamplingWarning, match="units switch there and back between neighbouring samples, most near t ="):
        attribute(model, path, torch.linspace(0, 1, samples, dtype=torch.float64), chunk=200)
    # The plain passes, two tries, the path itself; eight samples for six new intervals, and a round beyond the last.
    assert max(seen) <= 200
    assert sum(seen) < 30 + 33 + 2 * (32 + 64) * 8 / 6


#: At 0, opposite kinks of units that are seen in the interval before it and in the one behind.
OPPOSITE = {
    "a number as two parts": lambda x: F.relu(x) - F.relu(-x),
    "a magnitude less twice a part": lambda x: x.abs() - 2 * F.relu(x),
    "larger and smaller": lambda x: torch.maximum(x, 0 * x) + torch.minimum(x, 0 * x),
    "a hat and a half": lambda x: F.relu(0.2 - x.abs()) + F.relu(x),
    "the magnitude of CReLU": lambda x: (F.relu(x) - F.relu(-x)).abs(),
}


@pytest.mark.parametrize("name", OPPOSITE)
@pytest.mark.parametrize("samples", [9, 11])
def test_kinks_on_a_sample_are_read_alike_wherever_chunks_end(name, samples):
    line = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        found = [measured(OPPOSITE[name], samples, line, chunk=chunk) for chunk in (samples, 2, 3, 4, 5, 6, 7)]
    for other in found[1:]:
        torch.testing.assert_close(other.total, found[0].total)
        torch.testing.assert_close(other.unexplained, found[0].unexplained)
        assert [layer.switches for layer in other.layers] == [layer.switches for layer in found[0].layers]


def test_an_output_that_no_jump_reaches_is_not_excused():
    def model(x):
        jumps = [torch.round(7 * x), x.sign() * F.relu(x - 0.13)]
        return torch.cat([*jumps, torch.sqrt((x - 0.1234) ** 2)], 1)

    line = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    for samples in (3, 12):
        with pytest.warns(UserWarning, match="slope of output 2 jumps by 4, and no unit"):
            found = measured(model, samples, line)
        assert found.value_jumps.tolist() == pytest.approx([14, 0, 0])
        assert found.unexplained[:2].tolist() == pytest.approx([0, 0], abs=1e-9)
        assert float(found.unexplained[2]) >= 4


#: Outputs that would be constant, were it not for rounding.
ROUNDED = {
    "a difference": lambda x, a: (3.3 * x @ a).tanh() - (3 * (1.1 * x) @ a).tanh(),
    "the sum of softmax": lambda x, a: F.relu(x @ a).softmax(1).sum(1, keepdim=True),
    "the mean of a layer norm": lambda x, a: F.layer_norm(F.relu(x @ a), (8,)).mean(1, keepdim=True),
    "a corner under a value's rounding": lambda x, a: 0.1 + 1e-18 * torch.sqrt((x @ a) ** 2),
    "the parts of a number": lambda x, a: F.relu(x @ a) / 3 - F.relu(-x @ a) / 3 - x @ a / 3,
}


@pytest.mark.parametrize("name", ROUNDED)
@pytest.mark.parametrize("samples", [11, 101, 301])
def test_an_output_of_rounding_alone_is_no_cause_for_a_warning(name, samples):
    torch.manual_seed(0)
    a = torch.randn(4, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(lambda x: ROUNDED[name](x, a), samples)
    assert float(found.total.max()) < 1e-12
    # A small output is another thing.
    with pytest.warns(UserWarning, match="the total misses it"):
        measured(lambda x: 1e-12 * torch.sqrt((x @ a)[:, :1] ** 2), samples)


def test_a_corner_in_the_middle_of_a_path_is_told_from_rounding():
    line = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    with pytest.warns(UserWarning, match="the total misses it"):
        found = measured(lambda x: torch.sqrt(x**2), 12, line)
    assert float(found.unexplained[0]) >= 4  # the slope goes from −2 to 2


def test_opposite_kinks_within_an_interval_show_in_the_doubt():
    torch.manual_seed(0)
    centres = torch.rand(40, dtype=torch.float64)

    def model(x):
        x = 4 * (x[:, :1] - centres)
        return F.relu(F.relu(x + 0.1) - 2 * F.relu(x) + F.relu(x - 0.1) - 0.05).sum(1, keepdim=True)

    line = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    truth = 40 * 4 * 4
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is used for the first time
        for samples in (65, 129):
            found = measured(model, samples, line)
            off = abs(float(found.total) - truth)
            assert off < 0.05 * truth or any("may be off" in str(warning.message) for warning in seen)
    assert float(measured(model, 2001, line).total) == pytest.approx(truth, rel=1e-9)


def test_the_result_tells_its_doubt():
    pytest.importorskip("pandas")
    found = measured(lambda x: F.relu(x)[:, :2])
    assert found.unexplained.shape == (2,)
    assert repr(found).startswith(f"Attribution(SMP {float(found.total[0]):.4g} ± 0")
    assert found.to_frame().attrs["unexplained"] == found.unexplained.tolist()
    assert "value jumps [" in repr(measured(lambda x: x.sign()[:, :1]))
