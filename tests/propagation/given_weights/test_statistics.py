"""What travels from block to block: exact or estimated, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from smpcore import signals
from smpcore.propagation import Statistics, propagate

pytestmark = pytest.mark.numeric

F64 = torch.float64


def eye(n):
    return torch.eye(n, dtype=F64)


def test_estimated_statistics_come_near_the_exact_ones():
    process = signals.gaussian_process("rbf", 2001, 20.0, count=300, length_scale=0.5, seed=0)
    values, slopes = (part.reshape(100, 3, -1).mT for part in (process.values, process.slopes))
    found = Statistics.estimated(values + 1.0, slopes, 20.0)
    # 300 signals of about 20 independent stretches each: six standard errors of each moment.
    loose = 6 / math.sqrt(100 * 20)
    assert (found.mean - 1).abs().max() < loose
    assert (found.value_cov - eye(3)).abs().max() < 2 * loose
    assert (found.slope_cov - 4 * eye(3)).abs().max() < 8 * loose
    assert found.cross_cov.diagonal().abs().max() < 2 * loose
    assert found.shape == (3,)
    assert found.gaussian
    assert found.stationary
    assert found.moments == "estimated"
    assert Statistics.exact(0.0, eye(2), eye(2), 1.0).moments == "exact"


@pytest.mark.parametrize(("cross", "steady"), [([[0.0, 0.5], [-0.5, 0.0]], True), ([[0.0, 0.5], [0.5, 0.0]], False),
                                               ([[0.9, 0.0], [0.0, 0.0]], False)])
def test_exact_moments_say_whether_they_are_stationary(cross, steady):
    assert Statistics.exact(0.0, eye(2), eye(2), 1.0, cross_cov=torch.tensor(cross, dtype=F64)).stationary == steady


@pytest.mark.parametrize(("runs", "signals_"), [(1, 1), (1, 8), (40, 4), (400, 1)])
def test_stationary_samples_are_not_taken_for_others(runs, signals_):
    # The ends of a run differ by chance alone: 60 sets of them, and not one may be refused.
    for seed in range(60):
        x, slope, _ = signals.gaussian_process("rbf", 101, 5.0, count=runs * signals_, length_scale=0.5, seed=seed)
        values, slopes = (part.reshape(runs, signals_, -1).mT for part in (x, slope))
        assert Statistics.estimated(values, slopes, 5.0).stationary


@pytest.mark.parametrize("drifts", ["size", "mean"])
def test_signals_that_grow_or_rise_are_seen_and_refused(drifts):
    t = torch.linspace(0, 1, 51, dtype=F64)
    a, b = torch.randn(2, 200, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    slopes = (b if drifts == "size" else 0.1 * b + 1).expand(-1, 51, -1)
    found = Statistics.estimated(a + t[:, None] * slopes, slopes, 1.0)
    assert not found.stationary
    with pytest.raises(ValueError, match="do not change along the path"):
        propagate(nn.ReLU(), found)


def test_numbers_broadcast_and_linear_maps_follow_the_algebra():
    given = Statistics.exact(1.0, eye(2), 4 * eye(2), 20.0, smp=3.0)
    weight = torch.tensor([[1.0, -2.0]], dtype=F64)
    found = given.linear(weight, 0.5)
    assert found.mean.tolist() == [-0.5]
    assert found.var.tolist() == [5.0]
    assert found.slope_var.tolist() == [20.0]
    assert found.smp.tolist() == [9.0]


@pytest.mark.parametrize(("change", "sentence"), [
    ({"duration": 0.0}, "duration = 0: it has to be positive; a path takes time"),
    ({"smp": -1.0}, "smp = -1: it must not be negative"),
    ({"value_cov": -eye(2)}, "value_cov is not positive semi-definite"),
    ({"slope_cov": eye(3)}, "sizes do not match: value_cov"),
    ({"shape": (3,)}, "sizes do not match: value_cov"),
    ({"mean": torch.zeros(3)}, r"sizes do not match: 2 signals, mean \(3,\)"),
    ({"smp": torch.ones(1, 2)}, r"sizes do not match: 2 signals.* smp \(1, 2\)"),
    ({"cross_cov": torch.zeros(2)}, r"sizes do not match: 2 signals.* cross_cov \(2,\)"),
    ({"cross_cov": 1.01 * eye(2)}, "cross_cov does not go with value_cov and slope_cov.*lowest eigenvalue -0.01 "),
])
def test_what_no_signals_can_have_is_refused(change, sentence):
    given = {"mean": 0.0, "value_cov": eye(2), "slope_cov": eye(2), "duration": 1.0} | change
    with pytest.raises(ValueError, match=sentence):
        Statistics.exact(**given)


def test_samples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least two samples"):
        Statistics.estimated(torch.zeros(1, 3), torch.zeros(1, 3), 1.0)


@pytest.mark.parametrize(("assumption", "words"), [("gaussian", "Gaussian signals"),
                                                   ("stationary", "do not change along the path")])
def test_a_broken_assumption_is_named(assumption, words):
    given = Statistics(torch.zeros(1), eye(1), eye(1), 0 * eye(1), 1.0, (), (1,), **{assumption: False})
    with pytest.raises(ValueError, match=f"ReLU has a rule for .*{words}"):
        given.require("ReLU", "gaussian", "stationary")
