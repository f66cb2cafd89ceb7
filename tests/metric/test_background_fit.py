"""The smooth background under kinks: all fits at once beside each by itself, and how far they are trusted."""

import numpy as np
import pytest
import torch

from smpcore.metric import background_fit

pytestmark = pytest.mark.numeric


def above(second, where, noise, window, threshold, **known):
    """What suspects at flat indices have above their background, and whether it stands out of the row's noise."""
    mask = torch.zeros(second.shape, dtype=torch.bool)
    mask.view(-1)[where] = True
    found = background_fit.above_background(second, mask, window, threshold, **known)
    return found.left.view(-1)[where], (found.strength > threshold * noise[:, None]).view(-1)[where]


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


def one_by_one(second, where, noise, window, threshold):
    """The same for each suspect by itself: neighbours found by walking, polynomials by least squares."""
    rows, samples = second.shape
    under_suspicion = torch.zeros(rows * samples, dtype=torch.bool)
    under_suspicion[where] = True
    left, stands_out = torch.zeros(len(where), dtype=torch.float64), torch.zeros(len(where), dtype=torch.bool)
    for number, place in enumerate(where.tolist()):
        row, begin = place // samples, place
        while begin > row * samples and under_suspicion[begin - 1]:
            begin -= 1
        free = [k for k in range(row * samples, (row + 1) * samples) if not under_suspicion[k]]
        before = sum(k < begin for k in free)
        first = min(max(before - (window - 1) // 2, 0), len(free) - (window - 1))
        if first < 0:
            continue
        near = np.array(free[first:first + window - 1])
        values = second.view(-1)[near].numpy()
        fits = []
        for degree in range(5):
            basis, at = (np.vander(np.atleast_1d(x - place) / 8, degree + 1) for x in (near, place))
            weights = (at @ np.linalg.pinv(basis))[0]
            fits.append((weights @ values, (weights**2).sum(), values - basis @ (np.linalg.pinv(basis) @ values)))
        trusted = [fit for fit in fits[:4] if fit[1] <= background_fit._FAR]
        here = float(second.view(-1)[place])
        whole, careful = here - fits[3][0], here - trusted[-1][0]
        left[number] = 0 if whole * careful < 0 else min(whole, careful, key=abs)
        misfit = ((fits[3][2] ** 2).sum() / (window - 5)) ** 0.5
        limit = threshold * max(misfit, float(noise[row])) * (1 + trusted[-1][1]) ** 0.5
        stands_out[number] = abs(left[number]) > max(limit, 1.5 * abs(fits[4][0] - fits[3][0]))
    return left, stands_out


@pytest.mark.parametrize("window", [7, 9, 15])
@pytest.mark.parametrize("dense", [0.0, 0.02, 0.1, 0.3])
def test_all_runs_together_are_the_fit_of_each(window, dense):
    given = *suspects(7, 100, 5, dense), window, 1.0
    (left, stands_out), (wanted, clear) = above(*given), one_by_one(*given)
    torch.testing.assert_close(left, wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(stands_out, clear)
    assert dense == 0.0 or stands_out.any()


@pytest.mark.parametrize("moved", [0.0, 0.01, 0.3])
def test_what_is_known_of_other_suspects_changes_nothing(moved):
    second, where, _ = suspects(7, 100, 5, 0.1)
    before = torch.zeros(7, 100, dtype=torch.bool)
    before.view(-1)[where] = True
    before[3, 4:] = True  # too few samples for a background
    other = torch.rand(7, 100, generator=torch.Generator().manual_seed(1)) < moved
    after = torch.where(other, ~before, before)
    after[3] = before[2]
    for now in (after, torch.zeros_like(before)):
        known = background_fit.above_background(second, before, 9, 1.0)
        found = background_fit.above_background(second, now, 9, 1.0, known)
        anew = background_fit.above_background(second, now, 9, 1.0)
        assert torch.equal(found.suspected, anew.suspected)
        for column in ("left", "strength"):
            torch.testing.assert_close(getattr(found, column), getattr(anew, column), rtol=1e-9, atol=1e-9)
        assert bool(found.left.any()) == bool(now.any())


def test_a_bend_across_a_long_run_is_not_a_kink():
    """Twenty suspects on a smooth bend that a cubic misses, beside a run with a kink on it."""
    x = torch.arange(60.0, dtype=torch.float64)
    bend = torch.cos(x / 8)[None]
    where, noise = torch.arange(20, 40), torch.full((1,), 1e-6, dtype=torch.float64)
    left, stands_out = above(bend, where, noise, 9, 5.0)
    assert float(left.abs().max()) > 0.1
    assert not stands_out.any()
    kinked = bend.clone()
    kinked[0, 30] += 2.0
    _, stands_out = above(kinked, torch.arange(28, 33), noise, 9, 5.0)
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
