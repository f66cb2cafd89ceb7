"""How far single networks scatter, predicted against networks that are drawn and measured."""

import math

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation
from smpcore.propagation.weight_spread import DRAWS, drawn_network

pytestmark = pytest.mark.numeric

F64 = torch.float64
TAU = 2 * math.pi
PICTURE = (1, 10, 10)


@pytest.mark.parametrize(("make", "shape"), [
    (lambda seed: models.mlp(32, width=128, depth=3, seed=seed), (32,)),
    (lambda seed: models.cnn(PICTURE, channels=16, depth=2, activation=lambda: nn.LeakyReLU(0.2), seed=seed), PICTURE),
    (lambda seed: models.cnn(PICTURE, channels=16, depth=2, pooling="max", seed=seed), PICTURE),
], ids=["mlp", "leaky", "max"])
def test_the_spread_is_that_of_drawn_networks(make, shape):
    path, times, draws = paths.circle(shape), torch.linspace(0, TAU, 101, dtype=F64), 100
    guess = propagation.predict_network(make(0), path, times)
    found = torch.stack([attribute(make(seed), path, times).total[0] for seed in range(1000, 1000 + draws)])
    ratio = float(guess.std[0] / guess.total[0] / (found.std() / found.mean()))
    # 15%, and two standard errors of both spreads.
    assert abs(ratio - 1) < 0.15 + 2 * math.sqrt(1 / (2 * DRAWS) + 1 / (2 * draws))


def test_one_layer_scatters_by_the_root_of_its_width():
    # On the circle SMP is 2 Σ_u |v_u| R_u, v Gaussian and R Rayleigh: its variance over its squared mean is
    # (E v² E R²/(E|v| E R)² − 1)/n = (π/2 · 4/π − 1)/n = 1/n.
    width, models_read = 64, 4
    path, times = paths.circle(32), torch.linspace(0, TAU, 101, dtype=F64)
    guesses = [propagation.predict_network(models.mlp(32, width=width, depth=1, seed=seed), path, times)
               for seed in range(models_read)]
    found = torch.stack([guess.std[0] / guess.total[0] for guess in guesses]) * math.sqrt(width)
    # A readout's n weights are a sample themselves: E v²/(E|v|)² is known to √(0.283/n) of itself, the spread as well.
    error = math.sqrt((1 / (2 * DRAWS) + 0.283 / width) / models_read)
    assert abs(float(found.mean()) - 1) < 3 * error, found


def test_drawn_networks_have_the_models_weights():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.PReLU(3), nn.Flatten(), nn.Linear(48, 2)).eval()
    model[1].running_var.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before = {name: part.clone() for name, part in model.state_dict().items()}
    drawn = drawn_network(model, 3)
    for name, part in drawn.state_dict().items():
        assert torch.isin(part.abs(), before[name].abs()).all()
        assert torch.equal(model.state_dict()[name], before[name])
    assert (drawn[1].running_var > 0).all()
    assert (drawn[2].weight > 0).all()
    assert not torch.equal(drawn[0].weight.abs(), model[0].weight.abs())
    assert torch.equal(drawn_network(model, 3)[4].weight, drawn[4].weight)


def test_measured_moments_have_no_spread():
    model, times = models.mlp(8, width=16, depth=1), torch.linspace(0, 1, 20, dtype=F64)
    found = propagation.predict_network(model, paths.circle(8), times, moments="measured",
                                        reference=paths.circle(8, seed=1))
    with pytest.raises(ValueError, match="those of one network, whose SMP does not scatter over weights"):
        _ = found.std


def test_a_smooth_network_has_neither_smp_nor_spread():
    model = models.mlp(8, 3, width=16, depth=2, activation=nn.Tanh)
    times = torch.linspace(0, 1, 20, dtype=F64)
    for given in ({}, {"moments": "measured", "reference": paths.circle(8, seed=1)}):
        found = propagation.predict_network(model, paths.circle(8), times, **given)
        assert found.layers == []
        assert torch.equal(found.total, torch.zeros_like(found.total))
        assert found.total.shape == (3,)
        assert torch.equal(found.total_se, found.total)
        assert torch.equal(found.kinks, found.total)
        assert next(iter(found.to_frame().columns)) == "layer"
    assert torch.equal(propagation.predict_network(model, paths.circle(8), times).std, found.total)
