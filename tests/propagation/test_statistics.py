"""What travels from block to block: exact or estimated, and what it refuses."""

import math

import pytest
import torch

from smpcore import signals
from smpcore.propagation import Statistics

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
    given = Statistics(torch.zeros(1), eye(1), eye(1), 0 * eye(1), 1.0, torch.zeros(1), (1,), **{assumption: False})
    with pytest.raises(ValueError, match=f"ReLU has a rule for .*{words}"):
        given.require("ReLU", "gaussian", "stationary")
