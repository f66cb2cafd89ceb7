"""Whole networks: predicted against measured, the recursion against its closed kernel, and what is refused."""

import math
import time

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation
from smpcore.propagation._fields import Field, conv_map
from smpcore.propagation._graph import known_layers
from smpcore.propagation._two_slope import two_slope_field

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


def mlp(**settings):
    return lambda seed: models.mlp(196, seed=seed, **settings)


def cnn(**settings):
    return lambda seed: models.cnn(PICTURE, channels=24, seed=seed, **settings)


# name, network, straight line or circle, tolerance of the total, draws, samples
CASES = [
    ("he circle", mlp(width=256, depth=4), False, 0.06, 24, 151),
    ("he line", mlp(width=256, depth=3), True, 0.06, 24, 101),
    ("torch circle", mlp(width=256, depth=3, initialise="torch"), False, 0.08, 24, 151),
    ("torch line", mlp(width=256, depth=3, initialise="torch"), True, 0.08, 24, 101),
    ("leaky circle", mlp(width=256, depth=3, activation=lambda: nn.LeakyReLU(0.2)), False, 0.06, 24, 151),
    ("relu6", mlp(width=256, depth=2, activation=lambda: nn.Hardtanh(-0.5, 1.0)), False, 0.08, 12, 201),
    ("gelu below relu", lambda seed: _with_gelu(seed), False, 0.08, 12, 151),
    ("zero padding", cnn(depth=2, kernel=3), False, 0.08, 12, 151),
    ("average 5x5", cnn(depth=2, kernel=5, pooling="average"), False, 0.08, 12, 151),
    ("average 5x5 line", cnn(depth=2, kernel=5, pooling="average"), True, 0.08, 12, 101),
    ("overlapping average", cnn(depth=2, pooling="average", pool=3, stride=2), False, 0.08, 12, 151),
    ("strides, global average", strided, False, 0.10, 12, 151),
    ("max 5x5", cnn(depth=2, kernel=5, pooling="max"), False, 0.12, 12, 201),
    ("max line", cnn(depth=2, kernel=3, pooling="max"), True, 0.12, 12, 151),
    ("max 3/2", cnn(depth=1, kernel=3, pooling="max", pool=3, stride=2), False, 0.12, 12, 201),
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
    assert float(guesses[0].nodes_error[0]) < 0.01 * float(guesses[0].total[0])


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
    apply, outer = conv_map(layer, sides)
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
    assert list(frame.columns) == ["layer", "kind", "output", "smp", "smp_se", "how"]
    assert len(frame) == 4


class Then(nn.Module):
    """A network of features, or of maps, with code of its own in the middle."""

    def __init__(self, function, maps=False, out=4):
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(1, 4, 3) if maps else nn.Linear(8, 4)
        self.other = nn.Conv2d(1, 3, 3) if maps else nn.Linear(8, 3)
        self.out = nn.Linear(out, 1)

    def forward(self, x):
        return self.out(self.function(self, x))


def decides(net, x):
    return net.first(x) if x.sum() > 0 else -net.first(x)


class Two(nn.Module):
    def forward(self, x):
        return x, x


def sequence(*layers):
    return nn.Sequential(*layers).eval()


REFUSED = [
    ("no rule", sequence(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)), r"1 \(LayerNorm\) has no rule .* ReLU"),
    ("training", nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), r"training mode.*model\.eval"),
    ("two outputs", Two(), "returns more than one tensor"),
    ("no kink", sequence(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)), "no layer that can switch"),
    ("no readout", sequence(nn.Linear(8, 4), nn.ReLU()), "a linear readout is needed"),
    ("relu first", sequence(nn.ReLU(), nn.Linear(8, 1)), "acts on the inputs themselves"),
    ("features", sequence(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 1)), "takes 9 features, and gets 8"),
    ("bent twice", sequence(nn.Linear(8, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 1)), "neither Gaussian nor positive"),
    ("code", Then(decides).eval(), "cannot be read from its code"),
    ("function", Then(lambda net, x: torch.sin(net.first(x))).eval(), "model:sin has no rule"),
    ("dropout", Then(lambda net, x: nn.functional.dropout(net.first(x))).eval(), "dropout draws at random"),
    ("plus one", Then(lambda net, x: net.first(x) + 1).eval(), "of anything but two layers' outputs"),
    ("view", Then(lambda net, x: net.first(x).view(-1, 2, 2)).eval(), r"to another shape than \(batch, -1\)"),
    ("unlike", Then(lambda net, x: net.first(x) + net.other(x)).eval(), "both have to be alike"),
    ("itself", Then(lambda net, x: (net.first(x) + net.first(x)).relu()).eval(), "not independent"),
    ("hardtanh", Then(lambda net, x: nn.functional.hardtanh(torch.tanh(net.first(x)))).eval(), "that is not Gaussian"),
    ("part", Then(lambda net, x: net.first(x).relu()[:, :4]).eval(), "picks or reorders numbers"),
    ("no sides", Then(lambda net, x: nn.functional.avg_pool1d(net.first(x), 2)).eval(), "needs a map with sides"),
    ("no windows", Then(lambda net, x: nn.functional.max_pool1d(net.first(x), 2)).eval(), "needs a map with sides"),
    ("running", sequence(nn.Linear(8, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU(), nn.Linear(4, 1)),
     "keeps no running statistics"),
    ("shifted", None, "shifts a map that is not Gaussian"),
]


@pytest.mark.parametrize(("model", "sentence"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_has_no_rule_is_refused_by_name(model, sentence):
    if model is None:
        model = sequence(nn.Linear(8, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 1))
        model[2].running_mean.fill_(1.0)
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(model, paths.circle(8), torch.linspace(0, 1, 9, dtype=F64))



REFUSED_MAPS = [
    ("channels", sequence(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 1)), "takes 2 channels, and gets 1"),
    ("one side", sequence(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(4, 1)), "gets a map with 2 sides"),
    ("not flat", sequence(nn.Conv2d(1, 4, 3), nn.Linear(4, 1)), "not flattened"),
    ("close windows", sequence(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(16, 1)),
     "decide several windows at once"),
    ("pool after pool", sequence(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)),
     "has to stand behind a linear or convolutional layer"),
    ("kernel", sequence(nn.Conv2d(1, 4, 9), nn.Flatten(), nn.Linear(4, 1)), "smaller than the kernel"),
    ("window", sequence(nn.Conv2d(1, 4, 5), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 1)),
     "smaller than the pooling window"),
    ("mean", Then(lambda net, x: net.first(x).mean(1), maps=True).eval(), "only over all positions is known"),
    ("falling", sequence(nn.Conv2d(1, 4, 3), nn.LeakyReLU(-0.2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 1)),
     "falls below 0"),
    ("dims", sequence(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(2), nn.Linear(16, 1)), "flattens some dimensions only"),
]


@pytest.mark.parametrize(("model", "sentence"), [case[1:] for case in REFUSED_MAPS],
                         ids=[case[0] for case in REFUSED_MAPS])
def test_maps_that_do_not_fit_are_refused(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(model, paths.circle((1, 6, 6)), torch.linspace(0, 1, 9, dtype=F64))


def small():
    return models.mlp(8, width=16, depth=1)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"moments": "guessed"}, "must be 'weights' or 'measured'"),
    ({"moments": "measured"}, "needs reference"),
    ({"reference": paths.circle(8)}, "takes none"),
    ({"times": torch.tensor([0.0, 0.0])}, "times must increase"),
    ({"path": lambda t: t}, "one input for each is needed"),
    ({"path": lambda t: t.reshape(-1, 1, 1, 1, 1)}, r"\(C, H, W\) are known"),
])
def test_arguments_that_do_not_go_together(changes, sentence):
    given = {"model": small(), "path": paths.circle(8), "times": torch.linspace(0, 1, 9, dtype=F64)} | changes
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(given.pop("model"), given.pop("path"), given.pop("times"), **given)


def test_only_modules_can_be_read():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        propagation.predict_network(lambda x: x, paths.circle(8), torch.linspace(0, 1, 9))
    assert "ReLU" in known_layers()
    assert "MaxPool2d" in known_layers()


def test_measured_moments_run_on_the_reference_path_only():
    model = models.mlp(32, width=256, depth=2, seed=3)
    times = torch.linspace(0, TAU, 201, dtype=F64)

    ran = []
    model[0].register_forward_hook(lambda module, given, out: ran.append(given[0].detach().clone()))
    along = paths.circle(32, seed=1)
    found = propagation.predict_network(model, paths.circle(32, seed=2), times, moments="measured", reference=along)
    assert torch.equal(torch.cat(ran), along(times))
    truth = attribute(model, paths.circle(32, seed=2), times)
    # One draw of 256 units a layer on another circle: a fifth covers its scatter.
    assert float(found.total[0]) == pytest.approx(float(truth.total[0]), rel=0.2)
    assert found.moments == "measured"
    assert [a.name for a in found.layers] == [a.name for a in truth.layers]


def test_measured_windows_behind_a_relu():
    model = models.cnn((1, 10, 10), channels=24, depth=1, pooling="max", seed=1)
    times = torch.linspace(0, TAU, 151, dtype=F64)
    found = propagation.predict_network(model, paths.circle((1, 10, 10), seed=2), times, moments="measured",
                                        reference=paths.circle((1, 10, 10), seed=1))
    truth = attribute(model, paths.circle((1, 10, 10), seed=2), times)
    gap = abs(float(found.total[0]) - float(truth.total[0]))
    # Sinusoids in place of Gaussian signals, and one network: a quarter, and the draw of windows.
    assert gap < 0.25 * float(truth.total[0]) + 3 * float(found.total_se[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU in this machine")
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_same_prediction_on_a_gpu(pooling):
    model = models.cnn(PICTURE, channels=24, depth=2, pooling=pooling, seed=0)
    times = torch.linspace(0, TAU, 101, dtype=F64)
    here = propagation.predict_network(model, paths.circle(PICTURE), times)
    there = propagation.predict_network(model.to("cuda"), paths.circle(PICTURE), times)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-6, atol=0)
