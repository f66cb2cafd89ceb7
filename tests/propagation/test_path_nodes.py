"""At which times a path's moments are taken: enough of them, where it moves."""

import math

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation
from smpcore.propagation.path_nodes import chosen_times, inputs, motion

pytestmark = pytest.mark.numeric

F64 = torch.float64
TIMES = torch.linspace(0, 1, 4001, dtype=F64)
A, B = torch.randn(2, 64, dtype=F64, generator=torch.Generator().manual_seed(0))


def turning(angle):
    return A * torch.cos(angle)[:, None] + B * torch.sin(angle)[:, None]


def event(t):
    """Nearly all of the motion within a hundredth of the path, between two even nodes."""
    return turning(6 * torch.sigmoid((t - 0.51) / 0.002)) + 0.01 * B * t[:, None]


def waves(t):
    """At rest at every even node."""
    return turning(2 * math.pi * torch.sin(32 * math.pi * t) ** 2) + 0.1 * B * t[:, None]


@pytest.mark.parametrize("path", [event, waves], ids=["event", "waves"])
def test_motion_between_the_even_nodes_is_found(path):
    speed = motion(path, TIMES)
    even = torch.linspace(0, 4000, 33).round().long()
    whole = torch.trapezoid(speed, TIMES)
    # What 33 even times would have made of it.
    assert abs(torch.trapezoid(speed[even], TIMES[even]) / whole - 1) > 0.3
    chosen = chosen_times(path, TIMES)
    assert 33 < len(chosen) <= 1056
    assert abs(torch.trapezoid(speed[chosen], TIMES[chosen]) / whole - 1) <= 0.01


@pytest.mark.parametrize("path", [event, waves], ids=["event", "waves"])
def test_such_paths_are_predicted(path):
    def make(seed):
        return models.mlp(64, width=256, depth=1, seed=seed)

    guess = propagation.predict_network(make(0), path, TIMES)
    truth = torch.stack([attribute(make(seed), path, TIMES).total for seed in range(6)])
    assert guess.nodes > 33
    # One layer, six draws: what 4,001 samples miss, 3%, and three standard errors.
    assert abs(guess.total - truth.mean()) < 0.03 * truth.mean() + 3 * truth.std() / math.sqrt(6)


def test_a_steady_path_needs_no_more():
    assert torch.equal(chosen_times(paths.circle(8), TIMES), torch.linspace(0, 4000, 33).round().long())
    assert len(chosen_times(paths.line(A, B), TIMES)) == 33


def test_a_path_that_never_moves_makes_no_kinks():
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    assert propagation.predict_network(model, lambda t: A + 0 * t[:, None], TIMES).total.item() == 0


def test_jerks_too_fine_for_the_nodes_are_refused():
    def jerks(t):
        """A thousand short ones: more than there are nodes."""
        return turning(0.5 * torch.exp(60 * (torch.cos(2000 * math.pi * t) - 1)))

    with pytest.raises(ValueError, match=r"moves too unevenly: .* of its 40001 times .* shorter stretches"):
        propagation.predict_network(models.mlp(64, width=8, depth=1), jerks, torch.linspace(0, 1, 40_001, dtype=F64))


class Known:
    """`turning`, by numbers that carry no tangent, and its slope."""

    def __call__(self, t):
        return turning(t.detach())

    def slope(self, t):
        return turning(t.detach() + math.pi / 2)


def test_a_path_that_knows_its_slope_is_asked_for_it():
    values, slopes = inputs(Known(), TIMES)
    expected = inputs(turning, TIMES)
    torch.testing.assert_close(values, expected[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(slopes, expected[1], rtol=1e-13, atol=1e-13)
    model = models.mlp(64, width=16, depth=1)
    found, other = (propagation.predict_network(model, path, TIMES).total for path in (Known(), turning))
    torch.testing.assert_close(found, other, rtol=1e-12, atol=0)
