"""Each rule against its closed figures, its limits, another route to the same number, and simulation."""

import math
import time

import pytest
import torch

from smpcore import propagation, signals

pytestmark = pytest.mark.numeric

T = 20.0
F64 = torch.float64


def eye(k, scale=1.0):
    return scale * torch.eye(k, dtype=F64)


def equicorrelated(k, rho):
    return (1 - rho) * eye(k) + rho


def assert_agrees(predicted, samples):
    """Within four standard errors of the simulated mean, and 1% for its sampling of the path."""
    mean, error = samples.mean().item(), samples.std().item() / math.sqrt(len(samples))
    assert abs(predicted - mean) < 4 * error + 0.01 * mean, (float(predicted), mean, error)


@pytest.fixture(scope="module")
def process():
    """400 Gaussian signals, σ = 1, λ = 4, with exact slopes, 100 samples a length scale."""
    return signals.gaussian_process("rbf", 4001, T, count=400, length_scale=0.5, seed=3)


# Known figures: independent signals, σ² = 1, λ = 4, T = 20.
@pytest.mark.parametrize(("k", "known"), [(1, 0.0), (2, 40 / math.sqrt(math.pi) * 2), (4, 82.350),
                                          (9, 118.801)])
def test_independent_windows_have_their_known_figures(k, known):
    assert propagation.max_pool_smp(eye(k), eye(k, 4.0), T).item() == pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize("k", [3, 5, 9, 16])
def test_independent_windows_against_the_one_dimensional_integral(k):
    # λ/(σ√π) k(k−1)/2 E[Φ(v)^(k−2)], v ~ N(0, 1/2)
    v = torch.linspace(-8, 8, 20001, dtype=F64)
    inner = torch.trapezoid(torch.special.ndtr(v) ** (k - 2) * torch.exp(-(v**2)) / math.sqrt(math.pi), v)
    known = T * 4 / math.sqrt(math.pi) * k * (k - 1) / 2 * inner.item()
    result = propagation.max_pool_smp_estimate(eye(k), eye(k, 4.0), T)
    assert result.smp.item() == pytest.approx(known, rel=2e-3)
    assert result.standard_error.item() <= 1.001e-3 * known
    assert (result.standard_error.item() == 0) == (k <= 4)


@pytest.mark.parametrize("mean", [-1.5, -0.7, 0.0, 0.7, 1.5])
@pytest.mark.parametrize("slopes", [(1.0, 0.0), (1.0, 0.3), (1.0, -0.5), (1.0, -1.0)])
def test_two_slope_units_against_simulation(process, mean, slopes):
    above, below = slopes
    x = process.values + mean
    pieces = torch.stack([above * x, below * x], -1)
    rates = torch.stack([above * process.slopes, below * process.slopes], -1)
    assert_agrees(propagation.two_slope_smp(mean, 1.0, 4.0, T, slopes=slopes),
                  propagation.maximum_smp(pieces, rates))


@pytest.mark.parametrize(("mean", "slopes"), [(-1.0, (1.0, 0.0)), (0.5, (1.0, 0.2)), (0.3, (1.0, -1.0))])
def test_old_kinks_are_gated(process, mean, slopes):
    above, below = slopes
    kinks = signals.hinge_signals(process.times, 30, count=400, seed=8)
    index = (kinks.kink_times / process.times[1]).round().long()
    on = process.values.gather(1, index) + mean > 0
    passed = (kinks.kink_jumps.abs() * torch.where(on, abs(above), abs(below))).sum(-1)
    new = propagation.two_slope_smp(mean, 1.0, 4.0, T, slopes=slopes)
    together = propagation.two_slope_smp(mean, 1.0, 4.0, T, smp_in=kinks.smp.mean(), slopes=slopes)
    assert_agrees(together - new, passed)


# Windows: (signals, correlation of all pairs, means in σ)
@pytest.mark.parametrize(("k", "rho", "spread"), [
    (2, 0.0, 1.5), (2, 0.95, 0.3), (3, 0.5, 1.0), (4, 0.0, 1.5), (4, 0.8, 0.5), (6, 0.3, 1.0), (9, 0.0, 0.0),
    (9, 0.95, 0.4), (9, 0.5, 1.5),
])
def test_windows_against_simulation(process, k, rho, spread):
    mean = torch.linspace(-spread, spread, k, dtype=F64)
    mix = torch.linalg.cholesky(equicorrelated(k, rho)).mT
    rows = 40 * k if k < 9 else 396
    x, slope = (part[:rows].reshape(-1, k, part.shape[-1]).mT @ mix for part in process[:2])
    assert_agrees(propagation.max_pool_smp(equicorrelated(k, rho), 4 * equicorrelated(k, rho), T, mean),
                  propagation.maximum_smp(x + mean, slope))


@pytest.mark.parametrize(("height", "width", "spread"), [(1, 2, 0.0), (1, 3, 1.0), (2, 2, 0.5), (3, 3, 0.8)])
def test_neighbours_on_a_moving_picture_against_simulation(height, width, spread):
    # Values correlate with the neighbours' slopes here, which the rule must not need to know.
    look = {"height": height, "width": width, "length_scale": 1.2, "velocity": (2.0, 1.0)}
    picture = signals.moving_pictures(1501, 10.0, count=120, seed=5, **look)
    value_cov, slope_cov = signals.picture_covariances(**look)
    mean = torch.linspace(-spread, spread, height * width, dtype=F64)
    assert_agrees(propagation.max_pool_smp(value_cov, slope_cov, 10.0, mean),
                  propagation.maximum_smp(picture.values.flatten(2) + mean, picture.slopes.flatten(2)))


def test_old_kinks_pass_a_window_where_their_signal_wins(process):
    k, rho = 5, 0.4
    mean = torch.linspace(-1, 1, k, dtype=F64)
    cov = equicorrelated(k, rho)
    x = process.values.reshape(-1, k, 4001).mT @ torch.linalg.cholesky(cov).mT + mean
    share = torch.nn.functional.one_hot(x.argmax(-1), k).to(F64).mean(1)
    smp_in = torch.arange(1.0, k + 1, dtype=F64)
    passed = propagation.max_pool_smp(cov, 4 * cov, 0.0, mean, smp_in)
    assert_agrees(passed, share @ smp_in)


@pytest.mark.parametrize(("cov", "mean"), [
    ([[1.0, 0.3], [0.3, 2.0]], [0.4, -0.2]), ([[1.0, -0.9], [-0.9, 1.0]], [0.0, 0.0]),
    ([[0.5, 0.2], [0.2, 0.1]], [1.0, 0.7]),
])
def test_max_of_two_is_relu_of_the_difference(cov, mean):
    cov, mean = torch.tensor(cov, dtype=F64), torch.tensor(mean, dtype=F64)
    apart = torch.tensor([1.0, -1.0], dtype=F64)
    slope_cov = 3 * cov + 0.1 * eye(2)
    relu = propagation.two_slope_smp(apart @ mean, apart @ cov @ apart, apart @ slope_cov @ apart, T)
    assert propagation.max_pool_smp(cov, slope_cov, T, mean).item() == pytest.approx(relu.item(), rel=1e-12)


def test_relu_is_the_window_with_a_constant():
    cov, slope = torch.zeros(2, 2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    cov[0, 0], slope[0, 0] = 1.7, 2.2
    mean, old = torch.tensor([0.6, 0.0], dtype=F64), torch.tensor([5.0, 0.0], dtype=F64)
    assert propagation.max_pool_smp(cov, slope, T, mean, old).item() == pytest.approx(
        propagation.two_slope_smp(0.6, 1.7, 2.2, T, smp_in=5.0).item(), rel=1e-12)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.8])
def test_abs_is_two_relus_and_passes_every_old_kink(mean):
    def new(slopes, smp_in):
        return propagation.two_slope_smp(mean, 1.0, 4.0, T, smp_in=smp_in, slopes=slopes).item()

    relus = new((1.0, 0.0), 7.0) + propagation.two_slope_smp(-mean, 1.0, 4.0, T, smp_in=7.0).item()
    assert new((1.0, -1.0), 7.0) == pytest.approx(relus, rel=1e-12)
    assert new((1.0, -1.0), 7.0) - new((1.0, -1.0), 0.0) == pytest.approx(7.0, rel=1e-12)


CONVEX = {
    "relu": (lambda x: x[:, 0].relu(), [0]),
    "leaky relu": (lambda x: torch.nn.functional.leaky_relu(x[:, 0], 0.3), [0]),
    "abs": (lambda x: x[:, 0].abs(), [0]),
    "max of 2": (lambda x: x.amax(-1), [0, 1]),
    "max of 3": (lambda x: x.amax(-1), [0, 1, 3]),
    "2x2": (lambda x: x.amax(-1), [0, 1, 3, 4]),
    "3x3": (lambda x: x.amax(-1), list(range(9))),
}


@pytest.mark.parametrize("name", CONVEX)
def test_one_law_for_every_convex_unit(name):
    unit, pixels = CONVEX[name]
    every, slope_every = signals.picture_covariances(3, 3, length_scale=1.0)
    cov, slope_cov = every[pixels][:, pixels], slope_every[pixels][:, pixels]
    mean = 0.3 * torch.cos(torch.arange(len(pixels), dtype=F64))
    slopes = {"relu": (1.0, 0.0), "leaky relu": (1.0, 0.3), "abs": (1.0, -1.0)}.get(name)
    rule = (propagation.two_slope_smp(mean[0], cov[0, 0], slope_cov[0, 0], T, slopes=slopes) if slopes
            else propagation.max_pool_smp(cov, slope_cov, T, mean))
    law = propagation.convex_unit_smp(unit, cov, slope_cov, T, mean)
    assert abs(law.smp - rule) < 4 * law.standard_error + 2e-3 * rule
    assert law.standard_error < 0.01 * rule


def test_signals_whose_difference_never_varies_count_as_one():
    value_cov, slope_cov = signals.picture_covariances(1, 3)
    twice = [0, 1, 1, 2]
    again = (value_cov[twice][:, twice], slope_cov[twice][:, twice])
    alone = propagation.max_pool_smp(value_cov, slope_cov, T, smp_in=2.0).item()
    assert propagation.max_pool_smp(*again, T, smp_in=2.0).item() == pytest.approx(alone, rel=2e-3)
    # The copy that always lies higher takes the lower one's place.
    higher = torch.tensor([0.0, -1.0, 0.0, 0.0], dtype=F64)
    assert propagation.max_pool_smp(*again, T, higher, 2.0).item() == pytest.approx(alone, rel=2e-3)


@pytest.mark.parametrize("weights", [[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [1 / 3, 1 / 3, 1 / 3],
                                     [0.2, 0.2, 0.6]])
def test_a_mean_of_others_never_wins(weights):
    mix = torch.cat([eye(3), torch.tensor([weights], dtype=F64)])
    alone = propagation.max_pool_smp(eye(3), eye(3, 4.0), T).item()
    with_it = propagation.max_pool_smp(mix @ mix.mT, 4 * mix @ mix.mT, T).item()
    assert with_it == pytest.approx(alone, rel=1e-4)


def test_a_window_that_never_moves_adds_nothing():
    zero = torch.zeros(3, 3, dtype=F64)
    passed = propagation.max_pool_smp(zero, zero, T, torch.tensor([0.0, 2.0, 1.0]),
                                      torch.tensor([1.0, 2.0, 3.0]))
    assert passed.item() == 2.0


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_do_not_matter(scale):
    value_cov, slope_cov = signals.picture_covariances(2, 2)
    plain = propagation.max_pool_smp(value_cov, slope_cov, T)
    scaled = propagation.max_pool_smp(scale**2 * value_cov, scale**2 * slope_cov, T)
    assert scaled.item() == pytest.approx(scale * plain.item(), rel=1e-9)


def test_a_3x3_window_is_quick_and_a_batch_gives_the_same():
    value_cov, slope_cov = signals.picture_covariances(3, 3)
    alone = propagation.max_pool_smp_estimate(value_cov, slope_cov, T)
    took = []
    for _ in range(5):
        start = time.process_time()
        propagation.max_pool_smp(value_cov, slope_cov, T)
        took.append(time.process_time() - start)
    assert min(took) < 0.2
    factors = torch.linspace(0.5, 2, 8, dtype=F64)[:, None, None]
    batch = propagation.max_pool_smp_estimate(factors * value_cov, factors * slope_cov, T)
    # A symmetric window's components may be taken in another order: equal within the integration's error.
    unit = factors[:, 0, 0].sqrt()
    assert (batch.smp / unit - alone.smp).abs().max() < 6 * alone.standard_error
    assert (batch.standard_error <= 1e-3 * batch.smp).all()


def test_a_thousand_windows_at_once_are_each_right():
    # Windows of 3×3 on pictures of many length scales, each with means of its own; closed figures for every tenth,
    # whose signals are independent, and for the others the same window taken alone.
    count = 1000
    generator = torch.Generator().manual_seed(3)
    covs = [signals.picture_covariances(3, 3, length_scale=float(scale))
            for scale in torch.linspace(0.5, 2.0, count)]
    value_cov, slope_cov = (torch.stack(part) for part in zip(*covs, strict=True))
    mean = 0.5 * torch.randn(count, 9, dtype=F64, generator=generator)
    value_cov[::10], slope_cov[::10], mean[::10] = eye(9), eye(9, 4.0), 0.0
    found = propagation.max_pool_smp_estimate(value_cov, slope_cov, T, mean)
    assert found.smp[::10].tolist() == pytest.approx([118.801] * (count // 10), rel=5e-3)
    assert (found.standard_error <= 1.001e-3 * found.smp).all()
    for n in range(5, count, 97):
        alone = propagation.max_pool_smp_estimate(value_cov[n], slope_cov[n], T, mean[n])
        law = propagation.convex_unit_smp(lambda x: x.amax(-1), value_cov[n], slope_cov[n], T, mean[n])
        # Both ways have a scatter of eight scrambles: six standard errors.
        assert abs(found.smp[n] - alone.smp) < 6 * found.standard_error[n] + 1e-9
        assert abs(found.smp[n] - law.smp) < 6 * (law.standard_error + found.standard_error[n])


def test_shapes_broadcast_and_types_come_back():
    covs = equicorrelated(3, 0.5).expand(4, 1, 3, 3)
    means = torch.zeros(5, 3, dtype=F64)
    assert propagation.max_pool_smp(covs, 4 * equicorrelated(3, 0.5), T, means).shape == (4, 5)
    single = propagation.max_pool_smp(covs.float(), covs.float(), T)
    assert single.dtype == torch.float32
    assert propagation.two_slope_smp(torch.zeros(3, 1), 1.0, torch.ones(4), T).shape == (3, 4)
    assert propagation.two_slope_smp(0, 1, 4, T).dtype == F64
    assert propagation.linear_smp(torch.ones(2, 3), torch.ones(5, 3)).shape == (5, 2)


def test_closed_forms_are_differentiable():
    given = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.3, 1.2, 3.0, 2.0, 0.7)]
    assert torch.autograd.gradcheck(
        lambda mean, var, slope_var, smp_in, q: propagation.two_slope_smp(
            mean, var, slope_var, T, smp_in, (1.0, q)), given)
    for k in (2, 3, 4):
        value_cov, slope_cov = signals.picture_covariances(1, k)
        mean = torch.linspace(-0.4, 0.5, k, dtype=F64)
        inputs = [part.requires_grad_() for part in (value_cov, slope_cov, mean)]
        assert torch.autograd.gradcheck(
            lambda v, s, m: propagation.max_pool_smp((v + v.mT) / 2, (s + s.mT) / 2, T, m), inputs)


def test_linear_layers_pass_kinks_on():
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, -1.0]], dtype=F64)
    jumps = torch.tensor([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 3.0]], dtype=F64)
    apart = propagation.linear_smp(weight, jumps.abs().sum(0))
    torch.testing.assert_close(propagation.shared_linear_smp(weight, jumps), apart)
    together = torch.tensor([[1.0, 1.0, 2.0]], dtype=F64)
    torch.testing.assert_close(propagation.shared_linear_smp(weight, together),
                               torch.tensor([0.0, 1.7], dtype=F64), atol=1e-12, rtol=0)


def test_random_weights_on_average():
    source = torch.Generator().manual_seed(0)
    jumps = torch.randn(40, 6, generator=source, dtype=F64)
    weight = 0.7 * torch.randn(4000, 6, generator=source, dtype=F64)
    assert_agrees(propagation.random_linear_smp(0.7, jumps), propagation.shared_linear_smp(weight, jumps))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    value_cov, slope_cov = signals.picture_covariances(3, 3)
    there = propagation.max_pool_smp(value_cov.cuda(), slope_cov.cuda(), T, smp_in=1.0)
    assert there.is_cuda
    assert there.item() == pytest.approx(propagation.max_pool_smp(value_cov, slope_cov, T, smp_in=1.0).item(),
                                         rel=1e-6)
