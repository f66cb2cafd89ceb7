"""Trained networks predicted from what their units do along another path."""

import functools
import itertools
import math

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation
from smpcore.models import regressors as training
from smpcore.propagation import measured_moments

pytestmark = pytest.mark.numeric

F64 = torch.float64
TAU = 2 * math.pi


def test_measured_moments_run_on_the_reference_path_only():
    model = models.mlp(32, width=256, depth=2, seed=3)
    times = torch.linspace(0, TAU, 201, dtype=F64)

    ran = []
    model[0].register_forward_hook(lambda module, given, out: ran.append(given[0].detach().clone()))
    along = paths.circle(32, seed=1)
    found = propagation.predict_network(model, paths.circle(32, seed=2), times, moments="measured", reference=along)
    # Pieces of four intervals share their ends, and each is gone along once: there is no pooling.
    seen = torch.cat(ran)
    assert len(times) <= len(seen) <= 1.25 * len(times)
    assert float(torch.cdist(seen, along(times)).amin(1).max()) < 1e-5
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


def test_the_laws_error_and_the_transfers_are_kept_apart():
    model, times = models.mlp(16, 2, width=64, depth=2, seed=3), torch.linspace(0, TAU, 161, dtype=F64)
    path, reference = paths.circle(16, seed=2), paths.circle(16, seed=1)
    found = propagation.predict_network(model, path, times, moments="measured", reference=reference)
    there, here = (attribute(model, each, times) for each in (reference, path))
    frame = found.errors(there, here)
    assert list(frame.columns) == ["layer", "output", "predicted", "on_reference", "on_path", "law", "transfer"]
    assert list(frame.layer) == ["1:relu", "1:relu", "3:relu", "3:relu", "total", "total"]
    last = frame.iloc[-1]
    for column, each in (("predicted", found), ("on_reference", there), ("on_path", here)):
        assert last[column] == pytest.approx(float(each.total[1]), rel=1e-9)
    assert last.law * last.transfer == pytest.approx(float(found.total[1] / here.total[1]), rel=1e-9)
    # On its own reference the law has what a law can have: sinusoids of a few samples each.
    assert frame.law.between(0.85, 1.15).all()
    with pytest.raises(ValueError, match=r"the measurement has layers 1:relu, the prediction 1:relu, 3:relu"):
        found.errors(attribute(models.mlp(16, 2, width=8, depth=1), path, times), here)
    with pytest.raises(ValueError, match="moments='weights' have no reference, so no error of transfer"):
        propagation.predict_network(model, path, times).errors(there, here)


def test_pieces_share_their_ends_and_have_four_intervals_at_least():
    times = torch.linspace(0, 1, 100, dtype=F64)
    parts = measured_moments.pieces(times)
    assert len(parts) == 24
    assert min(map(len, parts)) >= 5
    assert all(one[-1] == other[0] for one, other in itertools.pairwise(parts))
    assert torch.equal(torch.cat([parts[0], *(part[1:] for part in parts[1:])]), times)
    assert len(measured_moments.pieces(times[:5])) == 1


def hinge(times, path):
    """What `predict_network` gives for one ReLU whose input runs along ``path``: its SMP on that very path."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double().eval()
    nn.init.ones_(model[0].weight)
    return float(propagation.predict_network(model, lambda t: 1 + path(t), times, moments="measured",
                                             reference=path).total[0])


def test_a_straight_signals_crossing_counts_once_wherever_it_lies():
    times = torch.linspace(0, 1, 81, dtype=F64)
    found = [hinge(times, lambda t, at=at: 3 * (t - at)[:, None]) for at in torch.linspace(0.3, 0.5, 9).tolist()]
    # A moving window: within 0.3% by Poisson's sum; the trapezoid rule's variance, 3% too high, changes nothing of it.
    torch.testing.assert_close(torch.tensor(found), torch.full((9,), 3.0), rtol=0.005, atol=0)


@pytest.mark.parametrize("rate", [4.0, 8.0])
def test_the_slope_at_a_crossing_is_that_which_goes_with_the_value(rate):
    """Channels behind which a bump fades away, to values that differ little from 0: their slope there is small."""
    times = torch.linspace(0, 4, 161, dtype=F64)
    # x = exp(−rate t) − b crosses 0 with slope rate·b; the mean square slope of a stretch is that of its larger values.
    levels = torch.exp(torch.linspace(-7, -1, 200, dtype=F64))
    model = nn.Sequential(nn.Linear(1, 200), nn.ReLU(), nn.Linear(200, 1, bias=False)).double().eval()
    for parameter, value in zip(model.parameters(), (torch.ones(200, 1), -levels, torch.ones(1, 200)), strict=True):
        parameter.data.copy_(value)

    def bump(t):
        return torch.exp(-rate * t)[:, None]

    found = propagation.predict_network(model, lambda t: 1 + bump(t), times, moments="measured", reference=bump)
    # Within a stretch exp is not a straight line: e^(8·rate·h) = 5 at the higher rate.
    assert float(found.total[0]) == pytest.approx(rate * float(levels.sum()), rel=0.1)


def law_by_layer(model, path, reference, times):
    """Predicted over measured on the reference of layers above 5% of the total, and of the total: all outputs."""
    found = propagation.predict_network(model, path, times, moments="measured", reference=reference)
    truth = attribute(model, reference, times)
    parts = {layer.name: float(layer.smp.sum()) for layer in truth.layers}
    whole = float(truth.total.sum())
    return float(found.total.sum()) / whole, {
        layer.name: float(layer.smp.sum()) / parts[layer.name] for layer in found.layers
        if parts[layer.name] > 0.05 * whole}


# The shipped networks that the law without the slope at the value, in stretches side by side, was most wrong about.
@pytest.mark.parametrize(("activation", "pooling", "seed"), [
    ("relu", "max", 1), ("relu", "max", 3), ("relu", "average", 1), ("relu", "average", 4), ("tanh", "max", 1)])
def test_the_law_holds_on_trained_regressors_layer_by_layer(activation, pooling, seed):
    network = training.stored(training.Recipe(activation, pooling, steps=300, seed=seed))
    total, layers = law_by_layer(network.model, network.recipe.path(), paths.blob(size=16, turns=-1.0),
                                 torch.linspace(0, TAU, 241, dtype=F64))
    assert abs(total - 1) < 0.12, total
    assert len(layers) >= 3
    assert all(abs(law - 1) < 0.2 for law in layers.values()), layers


class LeftEye(nn.Module):
    """The face network, with one number as its output."""

    def __init__(self):
        super().__init__()
        self.net = models.face_network()

    def forward(self, x):
        return self.net(x).landmarks[:, :1]


def test_the_law_holds_on_the_face_network_layer_by_layer():
    """On a 32nd of the pan of notebook 05, as finely as 241 samples of an eighth are."""
    path, reference = (paths.picture("grace_hopper.jpg", [165 + x, 125 + x, 375 + x, 335 + x], pan=(16, 10),
                                     **models.FACE_INPUT) for x in (0, 8))
    total, layers = law_by_layer(LeftEye().eval(), path, reference, torch.linspace(0, TAU / 32, 61, dtype=F64))
    assert abs(total - 1) < 0.12, total
    assert {"net.pool1:max_pool2d", "net.pool2:max_pool2d"} <= set(layers)
    assert all(abs(law - 1) < 0.2 for law in layers.values()), layers


class Twice(nn.Module):
    """Two poolings of one map."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Conv2d(1, 6, 3), nn.Linear(6 * 16, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        y = nn.functional.max_pool2d(x, 2) + nn.functional.max_pool2d(x, 3, 2, 1)
        return self.out(y.flatten(1))


@pytest.mark.parametrize("make", [
    lambda: models.cnn((1, 10, 10), channels=8, depth=2, pooling="max", seed=1),
    lambda: models.cnn((1, 10, 10), channels=8, depth=1, pooling="average", activation=lambda: nn.Hardtanh(-0.5, 1.0)),
    lambda: models.he_initialise(Twice().double().eval(), 0),
])
def test_parts_of_the_path_give_what_the_whole_gives(monkeypatch, make):
    model, shape = make(), (1, 10, 10)
    times = torch.linspace(0, TAU, 41, dtype=F64)

    def found():
        return propagation.predict_network(model, paths.circle(shape, seed=2), times, moments="measured",
                                           reference=paths.circle(shape, seed=1))

    whole = found()
    monkeypatch.setattr(measured_moments, "_NUMBERS", 20_000)
    parts = found()
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-9, atol=0)
    for one, other in zip(parts.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.smp, other.smp, rtol=1e-9, atol=1e-12)
        assert (one.how == "closed form") == (float(one.smp_se.max()) == 0)


def test_moments_of_parts_join():
    x, slope = torch.randn(2, 50, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) + 1e6
    gains = torch.randn(2, 50, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(50, dtype=F64, generator=torch.Generator().manual_seed(2))
    moments = functools.reduce(measured_moments.Moments.join, [
        measured_moments.Moments.of(weights[part], (x[part], slope[part]), gains[:, part])
        for part in (slice(0, 1), slice(1, 20), slice(20, 50))])
    share = weights / weights.sum()
    mean, drift = share @ x, share @ slope
    x, slope = x - mean, slope - drift
    wanted = mean, share @ x**2, share @ slope**2, share @ (x * slope), drift
    for one, other in zip(moments.law(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(moments.size, torch.einsum("p,mpn->mn", share, gains.abs()))
