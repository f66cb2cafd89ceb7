"""The smooth background under kinks: the quick way beside the plain one, and how far it is trusted."""

import pytest
import torch

from smpcore.metric import background_fit

pytestmark = pytest.mark.numeric


def suspects(rows, samples, seed, dense):
    """Samples of a rough background, and runs of them under suspicion, at the ends of rows too."""
    source = torch.Generator().manual_seed(seed)
    second = torch.randn(rows, samples, generator=source, dtype=torch.float64)
    begins = torch.rand(rows, samples, generator=source) < dense
    lengths = torch.randint(1, 7, (rows, samples), generator=source)
    mask = torch.zeros(rows, samples, dtype=torch.bool)
    for row, place in begins.nonzero().tolist():
        mask[row, place:place + int(lengths[row, place])] = True
    mask[0, :3] = mask[-1, -2:] = True
    noise = 0.1 + torch.rand(rows, generator=source, dtype=torch.float64)
    return second, mask.view(-1).nonzero()[:, 0], noise


@pytest.mark.parametrize("window", [7, 9, 15])
@pytest.mark.parametrize("dense", [0.0, 0.02, 0.1, 0.3])
def test_weights_by_length_are_the_fit_of_each_run(window, dense, monkeypatch):
    monkeypatch.setattr(background_fit, "_MANY", 2)
    second, where, noise = suspects(7, 300, 5, dense)
    quick = background_fit.above_background(second, where, noise, window, 1.0)
    plain = background_fit._between(second, where, noise, window, 1.0, slice(None))
    torch.testing.assert_close(quick[0], plain[0], rtol=1e-9, atol=1e-9)
    assert float((quick[1] == plain[1]).double().mean()) > 0.999
    assert dense == 0.0 or quick[1].any()
    # Not all by the same way.
    if dense == 0.1:
        assert 0.05 < float((quick[0] == plain[0]).double().mean()) < 0.95


def test_a_bend_across_a_long_run_is_not_a_kink():
    """Twenty suspects on a smooth bend that a cubic misses, beside a run with a kink on it."""
    x = torch.arange(60.0, dtype=torch.float64)
    bend = torch.cos(x / 8)[None]
    where, noise = torch.arange(20, 40), torch.full((1,), 1e-6, dtype=torch.float64)
    left, stands_out = background_fit.above_background(bend, where, noise, 9, 5.0)
    assert float(left.abs().max()) > 0.1
    assert not stands_out.any()
    kinked = bend.clone()
    kinked[0, 30] += 2.0
    _, stands_out = background_fit.above_background(kinked, torch.arange(28, 33), noise, 9, 5.0)
    assert stands_out.tolist() == [False, False, True, False, False]


def test_a_background_is_not_followed_far_beyond_its_samples():
    """Through eight rough samples, forty samples on: a cubic would be off by thousands of them."""
    source = torch.Generator().manual_seed(0)
    x = torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, 200)
    rough = torch.randn(8, 200, generator=source, dtype=torch.float64)
    run = torch.arange(200)
    whole, far, _, leverage, _ = background_fit._cubic(x, rough, torch.full((200,), 47.0, dtype=torch.float64), run)
    assert float(leverage.max()) <= background_fit._FAR
    assert float(far.abs().max()) < 4 * background_fit._FAR**0.5
    assert float(whole.abs().max()) > 1000
    near, *_ = background_fit._cubic(x, x**2, torch.full((200,), 8.0, dtype=torch.float64), run)
    torch.testing.assert_close(near, torch.full_like(near, 64.0))


def test_of_two_readings_the_smaller_is_claimed():
    one, other = torch.tensor([3.0, -3.0, 2.0, 0.0]), torch.tensor([2.0, -4.0, -2.0, 1.0])
    assert background_fit._smaller(one, other).tolist() == [2.0, -3.0, 0.0, 0.0]
