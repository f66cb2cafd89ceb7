"""Iterated systems: fields that stay pruned, a delay equation against a finer rule, forecasts that are functions."""

import pytest
import torch
from torch import nn

from smpcore.models import iterated_systems as systems

F64 = torch.float64


def test_the_moons_lie_where_they_should():
    x = systems.two_moons(4000, torch.Generator().manual_seed(0))
    upper, lower = x[::2], x[1::2]
    # Half circles about (-0.5, -0.25) and (0.5, 0.25), with a noise of 0.1.
    for half, middle in ((upper, [-0.5, -0.25]), (lower, [0.5, 0.25])):
        radius = (half - torch.tensor(middle)).norm(dim=1)
        assert abs(float(radius.mean()) - 1) < 0.03
        assert abs(float(radius.std()) - 0.1) < 0.02
    assert float(upper[:, 1].mean()) > 0 > float(lower[:, 1].mean())


def test_a_pruned_field_stays_pruned_and_trains():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    systems.prune(field, 0.5)
    gone = [field[place].weight == 0 for place in (0, 2)]
    share = sum(int(part.sum()) for part in gone) / sum(part.numel() for part in gone)
    assert share == pytest.approx(0.5, abs=0.02)
    before = [parameter.detach().clone() for parameter in field.parameters()]
    systems.train_field(field, 0, 3, batch=16)
    assert all(torch.equal(field[place].weight == 0, part) for place, part in zip((0, 2), gone, strict=True))
    assert not torch.equal(before[0], field[0].weight)


def test_mackey_glass_does_not_depend_on_its_step():
    # The constant past gives x' a jump that Runge and Kutta's rule meets at a grid point, so halving the step tells.
    coarse, fine = (systems.mackey_glass(5, 1, step=step) for step in (0.1, 0.05))
    assert coarse.shape == (5,)
    assert float((coarse - fine).abs().max()) < 0.02


@pytest.mark.parametrize("cell", ["relu", "tanh", "gru"])
def test_a_forecast_is_a_function_of_its_window_and_feedback_matters(cell):
    series = systems.mackey_glass(60, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = systems.Forecaster(cell, 4, hidden=6, noise=0.2)
        systems.train_forecaster(model, series, 8, 0, 3, batch=4)
        window = torch.rand(5, 8)
        assert model(window).shape == (5, 4)
        assert torch.equal(model(window), model(window))
        blind = systems.Forecaster(cell, 4, hidden=6, noise=0.2, feedback=False)
        blind.load_state_dict(model.state_dict())
    assert torch.equal(blind(window)[:, 0], model(window)[:, 0])
    assert not torch.equal(blind(window)[:, 1], model(window)[:, 1])
