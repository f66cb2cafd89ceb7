"""Learning problems: what their inputs are made of, and that training does what it says for each seed alone."""

import math

import pytest
import torch
from torch import nn

from smpcore.models import learning_systems as systems


def test_patches_hold_the_label_times_the_signal_and_noise_across_it():
    draw = torch.Generator().manual_seed(0)
    x, label, given = systems.patch_data(2000, 3.0, 0.2, 30, draw)
    assert torch.equal(x[:, 0, 0], 3 * label)
    assert not x[:, 0, 1:].any()
    assert not x[:, 1, 0].any()
    # Standard errors of a share and of a variance over 2,000 and 58,000 draws, four of each.
    assert abs(float((given != label).double().mean()) - 0.2) < 4 * math.sqrt(0.16 / 2000)
    assert abs(float(x[:, 1, 1:].var()) - 1) < 4 * math.sqrt(2 / 58000)


def test_networks_on_patches_learn_and_are_the_same_alone_and_together():
    x, _, given = systems.patch_data(20, 3.0, 0.0, 30, torch.Generator().manual_seed(0))
    both = systems.train_patches(x.expand(2, -1, -1, -1), given.expand(2, -1), [4, 5], [0, 20], filters=3)
    alone = systems.train_patches(x[None], given[None], [5], [20], filters=3)
    assert torch.allclose(both[20][1], alone[20][0], atol=1e-6)
    error = [float((systems.TwoPatchCnn(both[step][0])(x)[:, 0] * given <= 0).double().mean()) for step in (0, 20)]
    assert error[1] == 0 < error[0]


def test_ridges_do_not_change_across_their_directions():
    target = systems.Ridges(5, 0)
    a = target.directions
    assert torch.allclose(a @ a.T, torch.eye(3, dtype=a.dtype), atol=1e-12)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=a.dtype)
    across = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=a.dtype)
    across = across - across @ a.T @ a
    assert torch.allclose(target(x), target(x + across), atol=1e-12)
    assert target(torch.zeros(1, 5, dtype=a.dtype)).item() == 1


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_ridge_networks_are_kept_on_the_way_and_learn(activation):
    target = systems.Ridges(4, 0)
    kept = systems.train_ridges(target, 0, [0, 30], activation, batch=64)
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, last = ((kept[step](x) - target(x)).square().mean().item() for step in (0, 30))
    assert list(kept) == [0, 30]
    assert last < first
    assert any(isinstance(part, activation) for part in kept[30])


@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_functions_on_the_ring_have_unit_variance_and_their_length(gain):
    lengths = torch.tensor([1.5, 4.0])[:, None].expand(2, 3000)
    x = systems.ring_inputs(lengths, 40, gain, torch.Generator().manual_seed(0)).double()
    assert x.shape == (2, 3000, 40)
    assert torch.allclose(x.square().mean((1, 2)), torch.ones(2, dtype=torch.float64), atol=0.03)
    near = (x * x.roll(1, -1)).mean((1, 2))
    assert near[0] < near[1]
    if gain < 1:  # the Gaussian's correlation one site on: its spectrum is that of a bell of length √2 times as long
        assert torch.allclose(near, torch.exp(-1 / (4 * torch.tensor([1.5, 4.0], dtype=torch.float64) ** 2)), atol=0.02)


def test_networks_on_the_ring_learn():
    before, after = (systems.train_ring([0], 0.01, sites=16, hidden=8, steps=steps, batch=64) for steps in (1, 150))
    assert after["w"].shape == (1, 8, 16)
    assert float(after["error"]) < float(before["error"])
