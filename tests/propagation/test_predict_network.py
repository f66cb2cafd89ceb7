"""Whole networks: predicted against measured, and the recursion against its closed kernel."""

import math
import time

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation, trace_line
from smpcore.propagation.layer_graph import steps
from smpcore.propagation.random_weights import elementwise, linear, max_pool
from smpcore.propagation.random_weights.second_moments import Field, conv_map, pad_map, two_slope_field

pytestmark = pytest.mark.numeric

F64 = torch.float64
TAU = 2 * math.pi
PICTURE = (1, 14, 14)


def line(shape):
    start, end = torch.randn(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    return paths.line(start, end)


def strided(seed):
    layers = [nn.Conv2d(1, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 1)]
    return models.he_initialise(nn.Sequential(*layers).double().eval(), seed)


class Block(nn.Module):
    """A residual sum in front of a ReLU, functions in place of modules, and batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.second, self.third, self.out = nn.Conv2d(24, 24, 3), nn.Conv2d(24, 24, 1), nn.Linear(24 * 36, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.avg_pool2d(self.second(x), 2)
        x = nn.functional.relu(self.third(x.relu()) + x)
        return self.out(x.flatten(1))


def residual(seed):
    torch.manual_seed(seed)
    return models.he_initialise(Block().double().eval(), seed)


def depthwise(groups, norm=False):
    """A convolution in groups, with or without a batch norm and an upper threshold behind it."""
    def make(seed):
        layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1, groups=groups),
                  *([nn.BatchNorm2d(64)] if norm else []), nn.ReLU6() if norm else nn.ReLU(), nn.Conv2d(64, 64, 1),
                  nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 1)]
        return models.he_initialise(nn.Sequential(*layers).double().eval(), seed)

    return make


def mlp(**settings):
    return lambda seed: models.mlp(196, seed=seed, **settings)


def cnn(**settings):
    return lambda seed: models.cnn(PICTURE, channels=24, seed=seed, **settings)


# name, network, straight line or circle, tolerance of the total, draws, samples: 401 where units of deep layers would
# switch twice between fewer.
CASES = [
    ("he circle", mlp(width=256, depth=4), False, 0.06, 24, 401),
    ("he line", mlp(width=256, depth=3), True, 0.06, 24, 101),
    ("torch circle", mlp(width=256, depth=3, initialise="torch"), False, 0.08, 24, 401),
    ("torch line", mlp(width=256, depth=3, initialise="torch"), True, 0.08, 24, 101),
    ("leaky circle", mlp(width=256, depth=3, activation=lambda: nn.LeakyReLU(0.2)), False, 0.06, 24, 401),
    ("relu6", mlp(width=256, depth=2, activation=lambda: nn.Hardtanh(-0.5, 1.0)), False, 0.08, 24, 401),
    ("gelu below relu", lambda seed: _with_gelu(seed), False, 0.08, 24, 151),
    ("zero padding", cnn(depth=2, kernel=3), False, 0.08, 12, 151),
    ("average 5x5", cnn(depth=2, kernel=5, pooling="average"), False, 0.08, 12, 151),
    ("average 5x5 line", cnn(depth=2, kernel=5, pooling="average"), True, 0.08, 12, 101),
    ("overlapping average", cnn(depth=2, pooling="average", pool=3, stride=2), False, 0.08, 12, 151),
    ("strides, global average", strided, False, 0.10, 12, 151),
    ("max 5x5", cnn(depth=2, kernel=5, pooling="max"), False, 0.12, 12, 201),
    ("max line", cnn(depth=2, kernel=3, pooling="max"), True, 0.12, 12, 151),
    ("max 3/2", cnn(depth=1, kernel=3, pooling="max", pool=3, stride=2), False, 0.12, 12, 201),
    ("depthwise", depthwise(64), False, 0.08, 12, 201),
    ("depthwise, norm, relu6", depthwise(64, True), True, 0.08, 12, 201),
    ("groups of four", depthwise(16), False, 0.08, 12, 201),
    ("residual", residual, False, 0.10, 12, 201),
]


def _with_gelu(seed):
    layers = [nn.Linear(196, 256), nn.GELU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
    return models.he_initialise(nn.Sequential(*layers).double().eval(), seed)


@pytest.mark.parametrize(("make", "straight", "tolerance", "draws", "samples"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_predicted_and_measured_agree(make, straight, tolerance, draws, samples):
    flat = isinstance(next(make(0).children()), nn.Linear)
    shape = (196,) if flat else PICTURE
    path = line(shape) if straight else paths.circle(shape, seed=1)
    times = torch.linspace(0, 1.0 if straight else TAU, samples, dtype=F64)
    guesses, truths = [], []
    for seed in range(draws):
        model = make(seed)
        if seed % 6 == 0:
            # Each reads its own weights' moments: a few stand for all.
            guesses.append(propagation.predict_network(model, path, times))
        truths.append(attribute(model, path, times))
    assert [(layer.name, layer.kind) for layer in guesses[0].layers] == [(layer.name, layer.kind)
                                                                         for layer in truths[0].layers]
    smp = torch.stack([torch.cat([layer.smp for layer in truth.layers]) for truth in truths])
    predicted = torch.stack([torch.cat([layer.smp for layer in guess.layers]) for guess in guesses])
    error = smp.std(0) / math.sqrt(draws) + predicted.std(0) / math.sqrt(len(guesses))
    gap = (predicted.mean(0) - smp.mean(0)).abs()
    assert bool((gap <= 0.15 * smp.mean(0) + 3 * error).all()), (predicted.mean(0), smp.mean(0), error)
    totals, sums = smp.sum(1), predicted.sum(1)
    error = totals.std() / math.sqrt(draws) + sums.std() / math.sqrt(len(guesses))
    assert abs(sums.mean() - totals.mean()) <= tolerance * totals.mean() + 3 * error, (sums, totals.mean(), error)
    assert all((layer.how == "closed form") == (float(layer.smp_se[0]) == 0) for layer in guesses[0].layers)
    assert float(guesses[0].nodes_error[0]) < 0.01 * float(guesses[0].total[0])


# name, network, shape, tolerance: of networks of this width, and of pairs that several windows compare, one each.
COUNTED = [
    ("he 256x3", mlp(width=256, depth=3), (196,), 0.05),
    ("torch 256x3", mlp(width=256, depth=3, initialise="torch"), (196,), 0.05),
    ("average", cnn(depth=2, kernel=3, pooling="average"), PICTURE, 0.05),
    ("max", cnn(depth=2, kernel=3, pooling="max"), PICTURE, 0.10),
    ("max 5x5", cnn(depth=2, kernel=5, pooling="max"), PICTURE, 0.10),
    ("max 3/2", cnn(depth=1, kernel=3, pooling="max", pool=3, stride=2), PICTURE, 0.10),
]


@pytest.mark.parametrize(("make", "shape", "tolerance"), [case[1:] for case in COUNTED],
                         ids=[case[0] for case in COUNTED])
def test_kinks_are_as_many_as_a_trace_counts(make, shape, tolerance):
    path, draws = line(shape), 20
    guess = propagation.predict_network(make(0), path, torch.linspace(0, 1, 101, dtype=F64))
    start, end = path(torch.tensor([0.0, 1.0], dtype=F64))
    traces = [trace_line(make(seed), start, end) for seed in range(draws)]
    assert all(trace.certified for trace in traces)
    counts = torch.tensor([len(trace.times) for trace in traces], dtype=F64)
    error = float(counts.std()) / math.sqrt(draws)
    assert abs(float(guess.kinks[0] - counts.mean())) < tolerance * float(counts.mean()) + 2 * error
    for layer in guess.layers:
        own = torch.tensor([float(trace.layers.count(layer.name)) for trace in traces], dtype=F64)
        # A corner between two inputs of a window, and one with zero, may change places: of all kinks.
        slack = tolerance * float(counts.mean()) + 3 * float(own.std()) / math.sqrt(draws)
        assert abs(float(layer.kinks[0] - own.mean())) < slack, layer.name
    assert guess.to_frame()["kinks"].sum() == pytest.approx(float(guess.kinks[0]))


def test_kinks_by_the_moments_of_a_reference():
    model = models.mlp(32, width=256, depth=2, seed=3)
    times = torch.linspace(0, 1, 401, dtype=F64)
    here, there = line((32,)), paths.circle((32,), seed=1)
    found = propagation.predict_network(model, here, times, moments="measured",
                                        reference=lambda t: there(TAU * t))
    # Each unit a sinusoid on the reference, so it crosses 0 twice a turn; Gaussian units of the same moments do too.
    assert float(found.layers[0].kinks[0]) == pytest.approx(2 * 256, rel=0.05)


def test_on_the_circle_every_layer_adds_twice_the_root_of_the_width():
    model = models.mlp(64, width=400, depth=3, seed=0)
    for layer in model:
        if isinstance(layer, nn.Linear):
            gain = 1 if layer in (model[0], model[-1]) else 2
            layer.weight.data.mul_(math.sqrt(gain / layer.in_features) / layer.weight.data.square().mean().sqrt())
    model[-1].weight.data.mul_(math.sqrt(2 / math.pi / 400) / model[-1].weight.data.abs().mean())
    found = propagation.predict_network(model, paths.circle(64), torch.linspace(0, TAU, 200, dtype=F64))
    # The last layer's gains take the readout's mean magnitude, which was set to a Gaussian's; others its root mean
    # square, which that changed.
    assert float(found.layers[-1].smp[0]) == pytest.approx(2 * math.sqrt(400), rel=1e-9)
    root = math.sqrt(float(model[-1].weight.data.square().mean()) * 400)
    for layer in found.layers[:-1]:
        assert float(layer.smp[0]) == pytest.approx(2 * math.sqrt(400) * root, rel=1e-9)
    assert found.total_se.item() == 0
    assert all(layer.how == "closed form" for layer in found.layers)


def test_the_forward_recursion_is_the_arc_cosine_kernel():
    # Y. Cho, L. Saul, 2009: He-initialised, the correlation goes to (sin θ + (π − θ) cos θ)/π at each layer.
    angle = 0.7
    value = torch.tensor([[1.0, math.cos(angle)], [math.cos(angle), 1.0]], dtype=F64)[None, None]
    field = Field(value, value.clone(), 0 * value, 1, (2,), gaussian=True)
    cosine = math.cos(angle)
    for _ in range(4):
        behind = two_slope_field(field, 0.0, 1.0)
        theta = math.acos(cosine)
        cosine = (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / math.pi
        assert float(2 * behind.value[0, 0, 0, 1]) == pytest.approx(cosine, rel=1e-12)
        field = Field(2 * behind.value, 2 * behind.slope, 2 * behind.cross, 1, (2,), gaussian=True)


@pytest.mark.parametrize("below", [0.0, 0.3])
def test_pair_moments_against_draws(below):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, dtype=F64, generator=generator)
    joint = root @ root.T
    draws = torch.randn(400_000, 4, dtype=F64, generator=generator) @ root.T
    values, slopes = draws[:, :2], draws[:, 2:]
    field = Field(joint[None, None, :2, :2], joint[None, None, 2:, 2:], joint[None, None, 2:, :2], 1, (2,),
                  gaussian=True)
    found = two_slope_field(field, below, (1 - below) ** 2)
    gate = torch.where(values > 0, 1.0, below).double()
    y, rate = gate * values, gate * slopes
    for moment, (a, b) in ((found.value, (y, y)), (found.slope, (rate, rate)), (found.cross, (rate, y))):
        sample = torch.einsum("mi,mj->mij", a, b)
        error = sample.std(0) / math.sqrt(len(draws))
        assert bool(((moment[0, 0] - sample.mean(0)).abs() < 4.5 * error).all())


def test_pair_moments_of_any_unit_by_hermite_polynomials():
    # Two positions of correlation 0.95 and a third, values and slopes correlated: the ReLU's closed form.
    root = torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0)) / math.sqrt(6)
    root[1] = root[0] + 0.35 * root[1]
    joint = root @ root.T
    field = Field(joint[None, None, :3, :3], joint[None, None, 3:, 3:], joint[None, None, 3:, :3], 1, (3,),
                  gaussian=True)
    assert float(joint[0, 1] / (joint[0, 0] * joint[1, 1]).sqrt()) > 0.95

    def step(unit):
        model = nn.Sequential(nn.Linear(2, 2), unit, nn.Linear(2, 1)).double().eval()
        return next(step for step in steps(model, torch.Size([2])) if step.op == "unit")

    moments, passed = elementwise.by_quadrature(step(nn.ReLU()), field)
    assert torch.allclose(passed, torch.full_like(passed, 0.5))
    for found, exact in zip(moments, two_slope_field(field, 0.0, 1.0).moments(), strict=True):
        assert float((found - exact).abs().max()) < 0.01 * float(exact.abs().max())
    # Others against draws, of standard error about 1/√draws of each moment's size.
    draws = torch.randn(200_000, 6, dtype=F64, generator=torch.Generator().manual_seed(1)) @ root.T
    for unit in (nn.Hardtanh(-0.5, 1.0), nn.Softshrink(), nn.GELU(), nn.Hardswish()):
        made = step(unit).describe(draws[:, :3])
        y, gate = made.output(made.input).detach(), made.derivative(made.input).detach()
        rate = gate * draws[:, 3:]
        moments, _ = elementwise.by_quadrature(step(unit), field)
        for found, (a, b) in zip(moments, [(y, y), (rate, rate), (rate, y)], strict=True):
            sample = torch.einsum("mi,mj->mij", a, b)
            error = sample.std(0) / math.sqrt(len(draws))
            gap = (found[0, 0] - sample.mean(0)).abs()
            assert bool((gap < 0.01 * sample.mean(0).abs().max() + 4.5 * error).all()), unit


CONVOLUTIONS = [
    nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, stride=2, padding=(1, 0)),
    nn.Conv2d(4, 6, 3, groups=2, dilation=2),
    nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"), nn.Conv2d(3, 5, (3, 1), padding="same"),
    nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.Conv1d(3, 5, 4, stride=3, padding="valid"),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_a_convolutions_map_of_moments_is_that_of_its_mean_over_weights(layer):
    # Over weights of variance 1: E[y_p y_q] is the sum over taps, which the layer itself shows for unit taps.
    sides = (7, 6)[:len(layer.kernel_size)]
    x = torch.randn(1, layer.in_channels // layer.groups, *sides, dtype=F64,
                    generator=torch.Generator().manual_seed(1))
    flat = x[0].flatten(1)
    moment = torch.einsum("cp,cq->pq", flat, flat)[None, None]
    mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
    around = linear._pads(layer.padding, layer.kernel_size, layer.dilation)
    padded, padded_sides = pad_map(sides, around, mode)
    taps, outer = conv_map(layer.kernel_size, padded_sides, layer.stride, layer.dilation)

    def apply(moment):
        return taps(padded(moment))

    total = 0.0
    for row in torch.eye(x.shape[1] * math.prod(layer.kernel_size), dtype=F64):
        plain = type(layer)(x.shape[1], 1, layer.kernel_size, stride=layer.stride, padding=layer.padding,
                            dilation=layer.dilation, padding_mode=layer.padding_mode, bias=False).double()
        plain.weight.data = row.reshape(plain.weight.shape)
        y = plain(x).detach()
        assert tuple(y.shape[2:]) == outer
        total = total + torch.outer(y.flatten(), y.flatten())
    torch.testing.assert_close(apply(moment)[0, 0], total)
    torch.testing.assert_close(apply(torch.diagonal(moment, dim1=-2, dim2=-1))[0, 0], total.diagonal())


def test_each_channel_of_a_depthwise_convolution_has_a_rate_of_its_own():
    # Of 1×1 kernels each channel is a multiple of one signal, so that it passes 0 where that does: nowhere new.
    layers = [nn.Conv1d(2, 16, 1), nn.ReLU(), nn.Conv1d(16, 16, 1, groups=16, bias=False), nn.ReLU(), nn.Flatten(),
              nn.Linear(16, 1)]
    torch.manual_seed(0)
    model, path = nn.Sequential(*layers).double().eval(), paths.circle((2, 1))
    times = torch.linspace(0, TAU, 201, dtype=F64)
    found, truth = propagation.predict_network(model, path, times).layers, attribute(model, path, times).layers
    assert float(truth[1].smp[0]) == 0
    assert float(found[1].smp[0]) < 1e-6 * float(found[0].smp[0])
    assert [layer.how for layer in found] == ["simulated", "simulated"]


def test_it_is_quick_and_never_runs_the_model():
    model = models.cnn(PICTURE, channels=24, depth=2, kernel=5, pooling="average", seed=0)

    def forbidden(*_):
        raise AssertionError("a prediction ran the model")

    for module in model.modules():
        module.register_forward_hook(forbidden)
    model[0].weight.requires_grad_(False)
    times = torch.linspace(0, TAU, 300, dtype=F64)
    propagation.predict_network(model, paths.circle(PICTURE), times[:3])  # what is imported on first use
    begin = time.process_time()
    found = propagation.predict_network(model, paths.circle(PICTURE), times)
    # Half a second on a quiet core; processor time, with room for a busy one.
    assert time.process_time() - begin < 2
    assert found.nodes == 33
    assert float(found.total[0]) > 0


def test_to_frame_has_a_row_for_each_layer_and_output():
    frame = propagation.predict_network(models.mlp(8, 2, width=16, depth=2), paths.circle(8),
                                        torch.linspace(0, 1, 20, dtype=F64)).to_frame()
    assert list(frame.columns) == ["layer", "kind", "output", "smp", "smp_se", "kinks", "how"]
    assert len(frame) == 4


def pooled(seed):
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(32, 1)]
    return models.he_initialise(nn.Sequential(*layers).double().eval(), seed)


@pytest.mark.parametrize("path", [paths.circle((1, 6, 6), seed=5), line((1, 6, 6))], ids=["circle", "line"])
def test_the_error_of_the_windows_integrals_is_stated(monkeypatch, path):
    times = torch.linspace(0, 1.0, 17, dtype=F64)
    usual = propagation.predict_network(pooled(1), path, times)
    assert usual.total_se.item() > 0
    assert usual.layers[0].how == "simulated"
    monkeypatch.setattr(max_pool, "_POINTS", 128)
    monkeypatch.setattr(max_pool, "_EVERY", 1)
    sure = propagation.predict_network(pooled(1), path, times)
    assert sure.total_se < usual.total_se
    # Four replicates tell their own scatter badly: Student's t at three degrees of freedom, 1 in 500. And what the
    # straight lines in between leave out.
    assert abs(usual.total - sure.total) < 10 * usual.total_se + 0.01 * sure.total


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU in this machine")
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_same_prediction_on_a_gpu(pooling):
    model = models.cnn(PICTURE, channels=24, depth=2, pooling=pooling, seed=0)
    times = torch.linspace(0, TAU, 101, dtype=F64)
    here = propagation.predict_network(model, paths.circle(PICTURE), times)
    there = propagation.predict_network(model.to("cuda"), paths.circle(PICTURE), times)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-6, atol=0)
