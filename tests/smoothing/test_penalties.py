"""The penalty for training, and SMP expected from pairs of inputs."""

import math

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, trace_line
from smpcore.smoothing import curvature_penalty, expected_smp


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_penalty_is_the_mean_second_difference():
    class Square(nn.Module):
        def forward(self, x):
            return torch.stack([(x**2).sum(1), x[:, 0]], 1)

    x, d = drawn(5, 3), drawn(5, 3, seed=1)
    expected = 2 * (d**2).sum(1).mean() / 2  # the second output is straight
    torch.testing.assert_close(curvature_penalty(Square(), x, d, 0.05), expected, rtol=1e-9, atol=0)


def test_the_penalty_can_be_trained_on():
    model = models.mlp(3, 2, width=16, depth=2, activation="gelu").double()
    x, d = drawn(64, 3), drawn(64, 3, seed=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    found = []
    for _ in range(30):
        optimiser.zero_grad()
        penalty = curvature_penalty(model, x, d, 0.05)
        penalty.backward()
        optimiser.step()
        found.append(penalty.item())
    assert found[-1] < found[0]


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_expected_smp_is_what_a_path_shows(pooling):
    """Pairs h apart at random places of a path, by sixteenths of them for the error; over h² SMP per unit of time."""
    model = models.cnn((1, 10, 10), 2, channels=8, depth=2, pooling=pooling, seed=3).double()
    path, h = paths.circle((1, 10, 10), seed=0), 0.02
    times = torch.linspace(0, 2 * math.pi, 801, dtype=torch.float64)
    measured = attribute(model, path, times).total / (2 * math.pi)
    t = 2 * math.pi * torch.rand(1600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = torch.stack([expected_smp(model, path(part), path(part + h)) / h**2 for part in t.chunk(16)])
    error = parts.std(0) / math.sqrt(len(parts))
    # Windows that share candidates kink together, and are added one by one here: a few per cent.
    assert bool(((parts.mean(0) - measured).abs() < 4 * error + 0.04 * measured).all())
    assert bool((error < 0.1 * measured).all())


def test_expected_smp_of_one_layer_is_exact_in_the_mean():
    """One hidden layer has gains that never change: the estimate is unbiased, and many lines bring it home."""
    model = models.mlp(4, 1, width=64, depth=1, seed=1).double()
    x0, x1 = drawn(1000, 4), drawn(1000, 4, seed=1)
    parts = torch.stack([expected_smp(model, a, b) for a, b in zip(x0.chunk(20), x1.chunk(20), strict=True)])
    lines = torch.stack([trace_line(model, a, b).smp for a, b in zip(x0[:200], x1[:200], strict=True)])
    error = math.hypot(float(parts.std()) / math.sqrt(20), float(lines.std()) / math.sqrt(200))
    assert float(parts.mean()) == pytest.approx(float(lines.mean()), abs=4 * error)


def test_a_smooth_network_expects_none():
    model = models.mlp(4, 3, width=8, depth=2, activation="gelu").double()
    assert expected_smp(model, drawn(9, 4), drawn(9, 4, seed=1)).tolist() == [0.0, 0.0, 0.0]


def test_the_callers_model_keeps_its_gradients():
    model = models.mlp(4, 1, width=8, depth=1).double()
    expected_smp(model, drawn(9, 4), drawn(9, 4, seed=1))
    assert all(part.requires_grad and part.grad is None for part in model.parameters())


REFUSED = {
    "directions": (lambda: curvature_penalty(nn.Linear(3, 1), torch.ones(2, 3), torch.ones(2, 4), 0.1),
                   r"inputs has shape \(2, 3\) and direction \(2, 4\)"),
    "step": (lambda: curvature_penalty(nn.Linear(3, 1), torch.ones(2, 3), torch.ones(2, 3), 0.0),
             "step = 0.0: it must be a number above 0"),
    "ends": (lambda: expected_smp(nn.Linear(3, 1), torch.ones(2, 3), torch.ones(1, 3)),
             r"x0 has shape \(2, 3\) and x1 \(1, 3\)"),
    "NaN": (lambda: expected_smp(nn.Linear(3, 1), torch.ones(2, 3), torch.full((2, 3), math.nan)),
            "x0 or x1 holds NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        call()
