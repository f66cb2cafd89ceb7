"""The alternatives that the measurements are compared with have to be right themselves."""

import itertools
import time

import pytest
import torch
from torch import nn

from smpcore.benchmarks import finely_sampled_smp, in_turns, transform_line
from smpcore.models import REFERENCE_SMP, reference_cnn, reference_line


def test_the_transformed_line_has_every_kink_of_the_reference_network():
    model, (start, end) = reference_cnn(), reference_line()
    line = transform_line(model, start, end, parts=16)
    assert len(line.times) == 2470
    assert line.smp == pytest.approx(REFERENCE_SMP, abs=1e-11)
    assert (line.times.diff() > 0).all()


def test_cutting_the_line_changes_nothing():
    model, (start, end) = reference_cnn(), reference_line()
    whole, cut = (transform_line(model, start, end, parts=parts) for parts in (4, 11))
    assert len(whole.times) == len(cut.times)
    torch.testing.assert_close(whole.times, cut.times, rtol=0, atol=1e-11)


def test_a_small_network_against_brute_force():
    """Slopes by finite differences on either side of every kink, on a network small enough to look at."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8, 4),
                          nn.ReLU(), nn.Linear(4, 1)).double()
    start, end = torch.randn(1, 7, 7).double(), torch.randn(1, 7, 7).double()
    line = transform_line(model, start, end)
    edges = torch.cat([torch.zeros(1).double(), line.times, torch.ones(1).double()])
    with torch.no_grad():
        slopes = []
        for left, right in itertools.pairwise(edges):
            inside = torch.stack([left + 0.25 * (right - left), left + 0.75 * (right - left)])
            values = model(start + inside.reshape(-1, 1, 1, 1) * (end - start))[:, 0]
            slopes.append((values[1] - values[0]) / (inside[1] - inside[0]))
            middle = model(start + (left + right) / 2 * (end - start).unsqueeze(0))[0, 0]
            # Straight within the piece: nothing was missed there.
            assert middle.item() == pytest.approx(values.mean().item(), abs=1e-12)
    torch.testing.assert_close(torch.stack(slopes).diff(), line.jumps, rtol=1e-5, atol=1e-8)


def test_fine_sampling_is_a_lower_bound_that_grows():
    model, (start, end) = reference_cnn(), reference_line()
    read = [finely_sampled_smp(model, start, end, samples) for samples in (101, 401, 1601)]
    assert read[0] < read[1] < read[2] < REFERENCE_SMP


def test_work_is_timed_in_turns():
    calls = []
    seconds = in_turns({"first": lambda: calls.append("first"),
                        "second": lambda: (calls.append("second"), time.sleep(0.01))}, repeats=2)
    assert calls == ["first", "second"] * 3
    assert seconds["second"] >= 0.01 > seconds["first"]


def test_no_round_is_refused():
    with pytest.raises(ValueError, match="at least one round"):
        in_turns({}, repeats=0)
