"""Predictions of networks as they are used, against what is measured over drawn weights."""

import math

import pytest
import torch
from residual_networks import Logits, ResNet18, from_transformers
from torch import nn
from torch.nn import functional as F

from smpcore import attribute, models, paths, propagation
from smpcore.propagation.layer_graph import steps
from smpcore.propagation.random_weights import recursion
from smpcore.propagation.weight_spread import drawn_network

pytestmark = pytest.mark.numeric

F64 = torch.float64


def line(side):
    return paths.line(*torch.randn(2, 3, side, side, dtype=F64, generator=torch.Generator().manual_seed(0)))


def resnet_18(seed):
    torch.manual_seed(seed)
    return ResNet18(1).double().eval()


def resnet_of_transformers(seed):
    return from_transformers("ResNet", seed, num_labels=1, layer_type="basic", depths=[2, 2, 2, 2],
                             hidden_sizes=[64, 128, 256, 512])


@pytest.mark.parametrize("make", [resnet_18, resnet_of_transformers])
def test_residual_networks_are_predicted(make):
    if make is resnet_of_transformers:
        pytest.importorskip("transformers")
    path, times = line(48), torch.linspace(0, 1, 41, dtype=F64)
    guess = propagation.predict_network(make(0), path, times)
    truths = [attribute(make(seed), path, times) for seed in range(10)]
    assert [(layer.name, layer.kind) for layer in guess.layers] == [(layer.name, layer.kind)
                                                                    for layer in truths[0].layers]
    found = torch.stack([truth.total[0] for truth in truths])
    # 10%, and two standard errors of ten draws.
    assert abs(found.mean() / guess.total[0] - 1) < 0.1 + 2 * found.std() / math.sqrt(10) / guess.total[0]


@pytest.mark.parametrize("name", ["MobileNetV1", "MobileNetV2"])
def test_networks_of_depthwise_layers_are_predicted(name):
    pytest.importorskip("transformers")
    model = from_transformers(name, 0, num_labels=1).double()
    path, times = line(32), torch.linspace(0, 1, 81, dtype=F64)
    guess = propagation.predict_network(model, path, times)
    # Drawn from the model's own weights: networks of the second moments that the prediction reads. Their SMP scatters
    # by 20%, as those moments would from model to model (a channel's kernel has 9 weights).
    found = torch.stack([attribute(drawn_network(model, seed), path, times).total[0] for seed in range(10)])
    assert float(guess.total_se[0]) < 0.05 * float(guess.total[0])
    assert abs(found.mean() / guess.total[0] - 1) < 0.1 + 2 * found.std() / math.sqrt(10) / guess.total[0]


def test_calls_are_named_as_the_measurement_names_them():
    pytest.importorskip("transformers")
    model = from_transformers("MobileNetV2", 0, num_labels=1, depth_multiplier=0.35)
    named = [step.name for step in steps(model, (3, 32, 32)) if step.switches]
    found = attribute(model, line(32), torch.linspace(0, 1, 2, dtype=F64))
    assert named == [layer.name for layer in found.layers]


def test_attention_is_refused_by_its_layer():
    pytest.importorskip("transformers")
    model = from_transformers("ViT", 0, num_labels=1, num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
                              intermediate_size=32, image_size=16, patch_size=8)
    with pytest.raises(ValueError, match=r"layers\.0\.attention:\w+ is a part of attention, which has no"):
        propagation.predict_network(model, line(16), torch.linspace(0, 1, 3, dtype=F64))
    assert isinstance(model, Logits)


class Identity(nn.Module):
    """A pooling or an upsampling, and then x + f(x)."""

    def __init__(self, change):
        super().__init__()
        self.change, self.stem = change, nn.Conv2d(3, 16, 3, padding=1)
        self.inner, self.out = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 1)

    def forward(self, x):
        x = self.change(torch.relu(self.stem(x)))
        x = torch.relu(x + self.inner(x))
        return self.out(x.mean((2, 3)))


@pytest.mark.parametrize(("change", "side"), [
    (lambda x: F.max_pool2d(x, 3, 2, 1), 8), (lambda x: F.max_pool2d(x, 3, 2, 1), 16),
    (lambda x: F.avg_pool2d(x, 2), 8), (lambda x: F.interpolate(x, scale_factor=2.0), 5),
    (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 5),
], ids=["max 8", "max 16", "average 8", "nearest 5", "bilinear 5"])
def test_a_pool_or_an_upsampling_before_an_identity(change, side):
    def make(seed):
        return models.he_initialise(Identity(change).double().eval(), seed)

    path, times = line(side), torch.linspace(0, 1, 81, dtype=F64)
    guess = propagation.predict_network(make(0), path, times)
    found = torch.stack([attribute(make(seed), path, times).total[0] for seed in range(10)])
    # 16 channels are few: 15%, and three standard errors.
    assert abs(found.mean() / guess.total[0] - 1) < 0.15 + 3 * found.std() / math.sqrt(10) / guess.total[0]


class Named(nn.BatchNorm2d):
    """A subclass with the same forward."""


class WithReLU(nn.BatchNorm2d):
    """A subclass that does more."""

    def forward(self, x):
        return torch.relu(super().forward(x))


def test_subclasses_are_read_by_what_they_do():
    def network(norm, relu):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), norm, *([nn.ReLU()] if relu else []), nn.Flatten(), nn.Linear(144, 1)]
        return nn.Sequential(*layers).double().eval()

    path, times = line(8), torch.linspace(0, 1, 9, dtype=F64)
    plain, named, more = (propagation.predict_network(network(*each), path, times) for each in (
        (nn.BatchNorm2d(4), True), (Named(4), True), (WithReLU(4), False)))
    assert torch.equal(plain.total, named.total)
    assert torch.equal(plain.total, more.total)
    assert [layer.name for layer in more.layers] == ["1:relu"]


def test_weights_computed_from_others_and_in_place_calls_are_read():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)).double().eval()
    times = torch.linspace(0, 1, 9, dtype=F64)
    expected = propagation.predict_network(plain, paths.circle(8), times).total
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 16)), nn.ReLU(inplace=True),
                           nn.Linear(16, 1)).double().eval()
    normed[0].parametrizations.weight.original0.data = plain[0].weight.data.norm(dim=1, keepdim=True)
    normed[0].parametrizations.weight.original1.data = plain[0].weight.data
    normed[0].bias.data, normed[2] = plain[0].bias.data, plain[2]
    torch.testing.assert_close(propagation.predict_network(normed, paths.circle(8), times).total, expected)


def test_pairs_are_carried_only_where_a_pooling_needs_them(monkeypatch):
    graph = steps(resnet_18(0), (3, 64, 64))
    by_name = dict(zip([step.name for step in graph], recursion.carried(graph), strict=True))
    assert by_name["relu:relu"] == by_name["conv1:conv2d"] == recursion._NEAR
    assert by_name["layer1.0.relu:relu"] == by_name["maxpool:max_pool2d"] == recursion._OWN
    assert by_name["avgpool:adaptive_avg_pool2d"] == recursion._NONE
    # With all pairs of positions the same comes out, of a network small enough for them.
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2),
                          nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 1)).double().eval()
    times = torch.linspace(0, 1, 33, dtype=F64)
    near = propagation.predict_network(small, line(12), times)
    monkeypatch.setattr(recursion, "carried", lambda steps: [recursion._ALL if len(step.shape) == 3 else recursion._OWN
                                                             for step in steps])
    everywhere = propagation.predict_network(small, line(12), times)
    error = (near.total_se**2 + everywhere.total_se**2).sqrt()
    assert abs(near.total - everywhere.total) < 4 * error + 1e-3 * near.total
