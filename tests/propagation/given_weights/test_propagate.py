"""Every layer's rule against simulation: one table of cases, and a rule without a case fails."""

import math

import pytest
import torch
from torch import nn

from smpcore import attribute, signals
from smpcore.propagation import Residual, Statistics, propagate

pytestmark = pytest.mark.numeric

F64 = torch.float64
T, SAMPLES, RUNS, LENGTH = 10.0, 401, 40, 0.5


def he(inputs, outputs):
    """A linear layer whose weights have variance 2/fan-in."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / inputs))
    return layer


def hidden(count, inner=nn.ReLU):
    """16 inputs, hidden layers of 64 units, one output."""
    layers = [he(16, 64), nn.ReLU()]
    for _ in range(count - 1):
        layers += [he(64, 64), inner()]
    return nn.Sequential(*layers, nn.Linear(64, 1))


def bent(norm):
    """Batch norm with statistics of its own."""
    generator = torch.Generator().manual_seed(2)
    norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) * 0.3)
    norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
    return norm


# layer, shape of its input
CASES = [
    (lambda: nn.Identity(), (4,)), (lambda: nn.Dropout(0.3), (4,)), (lambda: nn.Dropout2d(0.3), (2, 2, 2)),
    (lambda: nn.Flatten(), (2, 3)), (lambda: nn.Linear(4, 5), (4,)), (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 5)),
    (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 4, 4)),
    (lambda: nn.Conv2d(1, 2, 2, dilation=2, padding_mode="circular", padding=1), (1, 4, 4)),
    (lambda: nn.AvgPool1d(2), (2, 6)), (lambda: nn.AvgPool2d(3, 2, padding=1), (1, 4, 4)),
    (lambda: nn.AdaptiveAvgPool1d(2), (2, 5)), (lambda: nn.AdaptiveAvgPool2d(2), (1, 4, 4)),
    (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3)),
    (lambda: bent(nn.BatchNorm1d(4)), (4,)), (lambda: bent(nn.BatchNorm2d(2)), (2, 2, 2)),
    (lambda: Residual(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))), (4,)),
    (lambda: nn.ReLU(), (4,)), (lambda: nn.LeakyReLU(0.2), (4,)), (lambda: nn.PReLU(2, 0.4), (2, 2)),
    (lambda: nn.Hardtanh(-0.5, 0.8), (4,)), (lambda: nn.ReLU6(), (4,)),
    (lambda: nn.Tanh(), (4,)), (lambda: nn.Sigmoid(), (4,)), (lambda: nn.GELU(), (4,)), (lambda: nn.SiLU(), (4,)),
    (lambda: nn.Softplus(), (4,)),
    (lambda: nn.MaxPool1d(2), (2, 4)), (lambda: nn.MaxPool2d(2), (1, 4, 4)), (lambda: nn.MaxPool2d(3, 2, 1), (1, 4, 4)),
    (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU()), (4,)),
    (lambda: nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2)), (4,)),
    # Kinks that fan out and meet again.
    (lambda: nn.Sequential(he(16, 64), nn.ReLU(), he(64, 64), nn.Linear(64, 1)), (16,)),
    (lambda: hidden(2), (16,)), (lambda: hidden(3), (16,)), (lambda: hidden(2, nn.Tanh), (16,)),
    (lambda: hidden(2, lambda: nn.LeakyReLU(0.3)), (16,)), (lambda: hidden(2, lambda: nn.Hardtanh(-1.0, 1.5)), (16,)),
    (lambda: nn.Sequential(nn.MaxPool2d(3, 1), nn.Flatten(), nn.Linear(4, 1)), (1, 4, 4)),
    (lambda: nn.Sequential(nn.MaxPool2d(2, 1), nn.AvgPool2d(2)), (1, 3, 3)),
]


def inputs(shape):
    """Correlated Gaussian signals with means, RUNS of them: values, slopes (RUNS, SAMPLES, n), statistics."""
    n = math.prod(shape)
    generator = torch.Generator().manual_seed(n)
    mix = torch.randn(n, n, dtype=F64, generator=generator) / math.sqrt(n) + 0.5 * torch.eye(n, dtype=F64)
    mean = 0.3 * torch.randn(n, dtype=F64, generator=generator)
    process = signals.gaussian_process("rbf", SAMPLES, T, count=RUNS * n, length_scale=LENGTH, seed=5)
    values, slopes = ((part.reshape(RUNS, n, -1).mT @ mix.T) for part in (process.values, process.slopes))
    cov = mix @ mix.T
    return process.times, values + mean, slopes, Statistics.exact(mean, cov, cov / LENGTH**2, T, shape=shape)


class Sampled(torch.autograd.Function):
    """Signals known at samples, with their slopes, as a path that forward-mode AD goes through."""

    @staticmethod
    def forward(t, values, slopes):
        return values.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.slopes = inputs[2]
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx, tangent, *_):
        return tangent.reshape(-1, 1) * ctx.saved_tensors[0]


def simulated(layer, shape, times, values, slopes):
    """SMP of each output over each run (RUNS, m), values and slopes of the outputs."""
    found, outputs, rates = [], [], []
    for run in range(RUNS):
        def path(t, run=run):
            # Between the samples the cubic through both values and slopes: attribution looks there as well.
            k = torch.searchsorted(times, t.detach(), right=True).clamp(1, len(times) - 1)
            step = (times[k] - times[k - 1])[:, None]
            u = (t.detach() - times[k - 1])[:, None] / step
            first, last, start, end = values[run, k - 1], values[run, k], slopes[run, k - 1], slopes[run, k]
            rise = (last - first) / step
            bend, twist = 3 * rise - 2 * start - end, start + end - 2 * rise
            value = first + step * u * (start + u * (bend + u * twist))
            return Sampled.apply(t, value, start + u * (2 * bend + 3 * u * twist)).reshape(-1, *shape)

        result = attribute(nn.Sequential(layer, nn.Flatten()), path, times, chunk=SAMPLES)
        found.append(result.total)
        outputs.append(result.values)
        rates.append(result.slopes)
    return torch.stack(found), torch.stack(outputs), torch.stack(rates)


@pytest.mark.parametrize(("make", "shape"), CASES, ids=[" ".join(str(make()).split()) for make, _ in CASES])
def test_every_rule_against_simulation(make, shape):
    torch.manual_seed(0)
    layer = make().double().eval()
    times, values, slopes, given = inputs(shape)
    smp, outputs, rates = simulated(layer, shape, times, values, slopes)
    predicted = propagate(layer, given)
    assert math.prod(predicted.shape) == outputs.shape[-1]
    error = smp.std(0) / math.sqrt(RUNS)
    # Samples miss what switches twice in between: 2%. A chain's inner sums are Gaussian only nearly: 8%, also for its
    # moments, in units of the output's own size.
    chain = isinstance(layer, nn.Sequential)
    slack = 0.08 if chain else 0.02
    assert bool(((predicted.smp - smp.mean(0)).abs() <= 4.5 * error + slack * smp.mean(0)).all()), (predicted.smp, smp)
    for moment, sample in ((predicted.mean, outputs.mean(1)), (predicted.slope_var, (rates**2).mean(1)),
                           (predicted.var + predicted.mean**2, (outputs**2).mean(1))):
        error = sample.std(0) / math.sqrt(RUNS)
        gap = (moment - sample.mean(0)).abs()
        size = (outputs**2).mean((0, 1)).sqrt() if chain and moment is predicted.mean else sample.mean(0).abs()
        loose = slack if chain else 0.01
        assert bool((gap <= 4.5 * error + loose * size + 1e-9).all()), (moment, sample.mean(0))


def test_every_registered_rule_has_a_case():
    cased = {type(make()) for make, _ in CASES}
    bare = {kind.__name__ for kind in propagate.registry if kind is not object and kind not in cased}
    assert not bare, f"rules without a case: {bare}"


@pytest.mark.parametrize(("layer", "slope"), [(nn.ReLU(), 0.0), (nn.LeakyReLU(0.2), 0.2)])
def test_old_kinks_pass_where_the_unit_is_on(layer, slope):
    given = Statistics.exact(0.0, torch.eye(1), torch.eye(1), 1.0, smp=8.0)
    fresh = Statistics.exact(0.0, torch.eye(1), torch.eye(1), 1.0)
    gained = propagate(layer, given).smp - propagate(layer, fresh).smp
    assert gained.item() == pytest.approx(8 * (1 + slope) / 2)


def test_old_kinks_pass_between_thresholds_and_through_smooth_units():
    given = Statistics.exact(0.0, torch.eye(1), torch.eye(1), 1.0, smp=8.0)
    fresh = Statistics.exact(0.0, torch.eye(1), torch.eye(1), 1.0)
    inside = propagate(nn.Hardtanh(), given).smp - propagate(nn.Hardtanh(), fresh).smp
    assert inside.item() == pytest.approx(8 * math.erf(1 / math.sqrt(2)))
    x = torch.linspace(-9, 9, 20001, dtype=F64)
    mean = torch.trapezoid((1 - torch.tanh(x) ** 2) * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), x)
    assert propagate(nn.Tanh(), given).smp.item() == pytest.approx(8 * float(mean), rel=1e-3)


def flat(n=4, **changes):
    return Statistics.exact(0.0, torch.eye(n), torch.eye(n), 1.0, **changes)


@pytest.mark.parametrize(("layer", "given", "sentence"), [
    (nn.Sequential(nn.ReLU(), nn.ReLU()), flat(), "ReLU has a rule for Gaussian signals only"),
    (nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), flat(shape=(1, 4)), "MaxPool1d has a rule for Gaussian signals"),
    (nn.MaxPool2d(2), flat(), "MaxPool2d takes maps of 2 sides"),
    (nn.BatchNorm1d(4), flat(), r"training mode.*model\.eval"),
    (nn.Linear(3, 2), flat(), "Linear cannot take inputs of shape"),
    (nn.PReLU(3), flat(), "PReLU has 3 slopes, for 4 channels"),
    (Residual(nn.ReLU()), flat(), "a residual sum around ReLU has no rule"),
    (Residual(nn.Linear(4, 3)), flat(), "both have to be alike"),
    (nn.ReLU(), flat(257), "257 signals: beyond 256"),
    (nn.Sequential(nn.ReLU(), nn.Linear(16, 1), nn.ReLU()), Statistics.exact(
        0.0, torch.ones(16, 16), torch.ones(16, 16), 1.0), "ReLU has a rule for Gaussian signals only"),
    (nn.ReLU(), flat(cross_cov=0.9 * torch.eye(4)), "do not change along the path"),
    (nn.MaxPool1d(2), flat(cross_cov=0.9 * torch.eye(4), shape=(1, 4)), "do not change along the path"),
])
def test_what_breaks_a_rule_is_refused(layer, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        propagate(layer, given)


def test_a_layer_without_a_rule_is_named_with_those_that_have_one():
    with pytest.raises(TypeError, match=r"LayerNorm has no rule .*Conv2d.*ReLU"):
        propagate(nn.LayerNorm(4), flat())


def test_subclasses_have_their_parents_rule():
    class Mine(nn.ReLU):
        pass

    torch.testing.assert_close(propagate(Mine(), flat()).smp, propagate(nn.ReLU(), flat()).smp)
