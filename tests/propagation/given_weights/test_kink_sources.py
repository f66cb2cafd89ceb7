"""Kinks that fan out and meet again: signed gains from each source."""

import math

import pytest
import torch
from torch import nn

from smpcore.propagation import Statistics, propagate
from smpcore.propagation.given_weights import kink_sources

pytestmark = pytest.mark.numeric

F64 = torch.float64


def eye(n):
    return torch.eye(n, dtype=F64)


def linear(*rows):
    weight = torch.tensor(rows, dtype=F64)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    layer.weight.data = weight
    return layer


def test_what_fans_out_and_cancels_is_gone():
    given = Statistics.exact(0.0, eye(1), eye(1), 1.0, smp=8.0)
    out = propagate(nn.Sequential(linear([1.0], [1.0]), linear([1.0, -1.0], [1.0, 1.0])), given)
    assert out.smp.tolist() == [0.0, 16.0]


def test_layers_that_are_one_linear_map_act_as_one():
    torch.manual_seed(0)
    first, second = nn.Linear(6, 40).double(), nn.Linear(40, 3).double()
    given = propagate(nn.ReLU(), Statistics.exact(0.0, eye(6), eye(6), 10.0))
    both = (second.weight @ first.weight).detach().abs() @ given.smp
    torch.testing.assert_close(propagate(nn.Sequential(first, second), given).smp, both)


def test_units_that_are_multiples_of_one_signal_kink_together():
    # Both ReLUs of x and −2x turn upwards where x passes 0: |x'| and 2|x'|, whose difference is |x'|.
    given = propagate(linear([1.0], [-2.0]), Statistics.exact(0.0, eye(1), eye(1), 10.0))
    alone = propagate(nn.ReLU(), Statistics.exact(0.0, eye(1), eye(1), 10.0)).smp.item()
    behind = propagate(nn.Sequential(nn.ReLU(), linear([1.0, -1.0], [1.0, 1.0])), given)
    assert behind.smp.tolist() == pytest.approx([alone, 3 * alone], rel=1e-9)
    # With other levels they cross 0 at other times.
    apart = Statistics.exact(torch.tensor([0.0, 0.5], dtype=F64), given.value_cov, given.slope_cov, 10.0)
    behind = propagate(nn.Sequential(nn.ReLU(), linear([1.0, -1.0], [1.0, 1.0])), apart)
    assert behind.smp[0].item() == pytest.approx(behind.smp[1].item())


def test_one_gate_passes_the_mean_exactly_and_two_that_meet_add_with_their_signs():
    given = Statistics.exact(torch.tensor([0.3, -1.2], dtype=F64), eye(2), eye(2), 1.0, smp=torch.tensor([1.0, 0.0]))
    on = torch.special.ndtr(given.mean)
    # The kinks of one source through two gates, and the difference of what they pass: one on and the other off.
    fan = propagate(linear([1.0, 0.0], [1.0, 0.0]), Statistics.exact(0.0, eye(2), eye(2), 1.0, smp=torch.tensor(
        [1.0, 0.0])))
    gated = Statistics(given.mean, eye(2), eye(2), 0 * eye(2), 1.0, fan.kinks, (2,))
    behind = propagate(nn.ReLU(), gated)
    old = behind.kinks[0]
    assert old.smp.tolist() == pytest.approx(on.tolist(), rel=1e-9)
    either = (on[0] * (1 - on[1]) + on[1] * (1 - on[0])).item()
    found = old.linear(torch.tensor([[1.0, -1.0]], dtype=F64)).smp.item()
    # As many draws as are carried: four standard deviations of a mean of that many.
    assert abs(found - either) < 4 * math.sqrt(either * (1 - either) / len(old.gain))


def test_overlapping_windows_share_their_pairs():
    # Two windows over three signals, {0, 1} and {1, 2}, share no pair; those of {0, 1, 2} and {1, 2, 3} share one.
    given = Statistics.exact(0.0, eye(4), eye(4), 10.0, shape=(1, 4))
    apart = propagate(nn.Sequential(nn.MaxPool1d(2, 1), nn.Flatten()), given)
    assert apart.linear(torch.tensor([[1.0, -1.0, 0.0]])).smp.item() == pytest.approx(apart.smp[:2].sum().item())
    shared = propagate(nn.Sequential(nn.MaxPool1d(3, 1), nn.Flatten()), given)
    plus, minus = (shared.linear(torch.tensor([[1.0, sign]])).smp.item() for sign in (1.0, -1.0))
    # All swaps turn upwards: sums keep every kink, differences lose those that both windows see.
    assert plus == pytest.approx(shared.smp.sum().item())
    assert minus < 0.9 * plus


def test_old_kinks_of_one_winner_reach_both_windows():
    given = Statistics.exact(0.0, eye(4), eye(4), 10.0, smp=torch.tensor([1.0, 5.0, 0.0, 2.0]), shape=(1, 4))
    old = propagate(nn.MaxPool1d(3, 1), given).kinks[0]
    x = torch.randn(400_000, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    first, second = x[:, :3].argmax(-1), x[:, 1:].argmax(-1) + 1
    smp = given.smp
    # A difference of the two windows keeps what one of them alone passes on.
    each = smp[first] + smp[second] - 2 * torch.where(first == second, smp[first], 0.0)
    found = old.linear(torch.tensor([[1.0, -1.0]], dtype=F64)).smp.item()
    assert abs(found - each.mean()) < 4 * each.std() / math.sqrt(len(old.gain))
    assert old.smp.tolist() == pytest.approx([2.0, 7 / 3], rel=5e-3)


def test_more_gains_than_fit_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match="kinks of 40,000 units, in 16 draws, reach 40,000 signals"):
        kink_sources.draws_for(40_000, 40_000)
    given = Statistics.exact(0.0, eye(2), eye(2), 1.0, smp=1.0)
    # A view of one number: nothing of that size is made.
    with pytest.raises(ValueError, match="predict_network goes through whole networks"):
        given.kinks[0].linear(torch.zeros(1, dtype=F64).expand(40_000_000, 2))


def test_draws_shrink_where_there_are_many_gains():
    assert kink_sources.draws_for(1, 1) == 256
    assert kink_sources.draws_for(256, 256) == 64
    assert kink_sources.draws_for(1000, 1000) == 16
