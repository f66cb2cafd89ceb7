"""Threshold and spiking networks: what is optimal is, what spikes count, what is read of a strain."""

import math

import pytest
import torch

from smpcore import attribute
from smpcore.models import jumping_systems as systems

F64 = torch.float64


def _data(n=15):
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(n, generator=draw, dtype=F64)
    return x, torch.sin(5 * x) + 0.2 * torch.randn(n, generator=draw, dtype=F64)


@pytest.mark.parametrize(("unit", "strength"), [("threshold", 0.1), ("relu", 0.01)])
def test_the_convex_network_is_optimal_and_its_reading_is_its_penalty(unit, strength):
    pytest.importorskip("sklearn")
    x, y = _data()
    net = systems.convex_network(x, y, strength, unit)
    rest = net(x[:, None])[:, 0] - y
    # What a Lasso's optimum is known by: no unit of the dictionary correlates with the rest by more than the strength.
    step = (x[:, None] - x > 0).double()
    features = step if unit == "threshold" else step * (x[:, None] - x)
    assert float((features.T @ rest).abs().max()) < strength * (1 + 1e-5)
    assert abs(float(rest.sum())) < 1e-8
    found = attribute(net, lambda t: t[:, None], torch.linspace(-0.1, 1.1, 800, dtype=F64))
    read = found.value_jumps if unit == "threshold" else found.total
    assert float(read) == pytest.approx(float((net.w * net.u).abs().sum()), rel=1e-9)


def test_refusals():
    x, y = _data()
    with pytest.raises(ValueError, match="unit = 'sine' is not known"):
        systems.convex_network(x, y, 0.1, "sine")
    with pytest.raises(ValueError, match="strength = 0: it must be a number above 0"):
        systems.convex_network(x, y, 0)


@pytest.mark.parametrize("unit", ["threshold", "relu"])
def test_training_lowers_the_sum_it_is_told_and_not_below_the_optimum(unit):
    pytest.importorskip("sklearn")
    x, y = _data()

    def total(net):
        price = net.w if unit == "threshold" else net.w * net.u
        return float((net(x[:, None])[:, 0] - y).square().sum() / 2 + 0.1 * price.abs().sum())

    before, after = (systems.train_shallow(x[None], y[None], torch.tensor([0.1], dtype=F64), unit, hidden=20,
                                           steps=steps, seed=1)[0] for steps in (1, 100))
    assert total(systems.convex_network(x, y, 0.1, unit)) < total(after) < total(before)


def test_a_scene_is_smooth_and_turns_with_the_car():
    heading = torch.tensor([0.0, math.pi / 2], dtype=F64)
    grid = systems.grid_scene(torch.full((2, 2), 8.0, dtype=F64), heading, torch.tensor([[3.0, 2.0]], dtype=F64))
    assert grid.shape == (2, 1, 16, 16)
    assert float(grid.min()) >= 0
    assert float(grid.max()) <= 1
    car = grid[:, 0, 4:12, 4:12]
    assert torch.allclose(car[0], car[1].T, atol=1e-4)
    assert float(grid[0, 0, 1:3, 2:4].mean()) > 0.3  # the pole, row 2 and column 3


def test_spikes_count_up_to_the_rates_that_they_stand_for():
    cnn = systems.train_grid_cnn(0, steps=2, batch=4)
    grid = systems.grid_scene(torch.tensor([[6.0, 9.0]]), torch.zeros(1), torch.ones(1, 2))
    with torch.no_grad():
        exact = cnn(grid)
        off = [float((systems.SpikingGridCnn(cnn, steps)(grid) - exact).abs().max()) for steps in (2, 256)]
    assert off[1] < off[0]
    assert off[1] < 0.02


def test_stress_solves_its_law():
    strain = torch.linspace(0, 2, 9, dtype=F64)
    sigma = systems.stress(strain)
    assert torch.allclose(sigma + sigma**5 / 2, strain, atol=1e-12)


def test_networks_that_read_a_strain_are_the_same_alone_and_together():
    pytest.importorskip("snntorch")
    first, second = systems.train_stress([0, 1], 4, hidden=5, training=3)
    strain = torch.rand(6, 1, generator=torch.Generator().manual_seed(0))
    both = systems.SpikingStress({name: torch.stack([first.weights[name], second.weights[name]])
                                  for name in first.weights}, 4)
    assert torch.allclose(both(strain.expand(2, 6, 1)), torch.stack([first(strain), second(strain)]), atol=1e-6)
    assert first(strain.double()).dtype == F64
