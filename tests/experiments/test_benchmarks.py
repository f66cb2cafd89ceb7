"""The alternatives that the measurements are compared with have to be right themselves."""

import itertools
import math
import time

import pytest
import torch
from torch import nn
from transfers import Transfers

from smpcore import signals
from smpcore.experiments.benchmarks import (
    in_turns,
    peak_bytes,
    rms_error,
    sampled_slopes,
    samples_needed,
    scipy_composition,
    transform_line,
)
from smpcore.models import REFERENCE_SMP, reference_cnn, reference_line

pytestmark = pytest.mark.numeric


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
    read = [float(sampled_slopes(model, start, end, samples).diff().abs().sum()) for samples in (101, 401, 1601)]
    assert read[0] < read[1] < read[2] < REFERENCE_SMP


def test_work_is_timed_in_turns(monkeypatch):
    """By a clock that only the work moves on; the fastest round counts."""
    calls, clock = [], [0.0]

    def work(name, *seconds):
        ahead = iter(seconds)

        def run():
            calls.append(name)
            clock[0] += next(ahead)
        return run

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    seconds = in_turns({"first": work("first", 9, 3, 2), "second": work("second", 1, 4, 5)}, repeats=2)
    assert seconds == {"first": 2, "second": 4}
    assert calls == ["first", "second"] * 3
    in_turns({"again": work("again", 1, 1)}, repeats=2, warm=True)
    assert calls[6:] == ["again"] * 2


def test_no_round_is_refused():
    with pytest.raises(ValueError, match="at least one round"):
        in_turns({}, repeats=0)


def test_errors_are_relative_and_squared():
    assert rms_error([1.03, 1.96], [1.0, 2.0]) == pytest.approx(math.sqrt((0.03**2 + 0.02**2) / 2))


@pytest.mark.parametrize(("samples", "errors", "needed", "extrapolated"), [
    ([10, 100], [0.1, 0.001], 10 * 10 ** 0.5, False),  # falls as 1/N²: a factor of 10 takes √10 times as many
    ([10, 100, 1000], [0.1, 0.01, 0.001], 100, False),
    ([10, 100, 1000], [0.001, 0.1, 0.001], 100 * 10 ** 0.5, False),  # a lucky first size does not count
    ([10, 100], [0.005, 0.001], 10, False),
    ([10, 100], [0.5, 0.05], 500, True),
])
def test_samples_needed_for_an_error(samples, errors, needed, extrapolated):
    found, beyond = samples_needed(samples, errors)
    assert found == pytest.approx(needed)
    assert beyond is extrapolated


@pytest.mark.parametrize(("samples", "errors"), [([], []), ([10, 20], [0.1])])
def test_sizes_without_their_errors_are_refused(samples, errors):
    with pytest.raises(ValueError, match="one error for each of at least one size"):
        samples_needed(samples, errors)


def test_the_plain_estimator_reads_most_of_well_resolved_kinks():
    hinges = signals.hinge_signals(torch.linspace(0, 1, 4001, dtype=torch.float64), 8, count=20, seed=0)
    read = scipy_composition(hinges.values.numpy(), 1 / 4000) / hinges.smp.numpy()
    assert read.mean() == pytest.approx(1, abs=0.05)


def test_memory_counts_what_lives_at_once():
    megabyte = torch.ones(2**17, dtype=torch.float64).nbytes

    def one_after_the_other():
        for _ in range(5):
            torch.ones(2**17, dtype=torch.float64)

    assert peak_bytes(one_after_the_other) <= 2 * megabyte
    assert peak_bytes(lambda: [torch.ones(2**17, dtype=torch.float64) for _ in range(5)]) == 5 * megabyte
    kept = torch.ones(2**17, dtype=torch.float64)
    assert peak_bytes(lambda: kept.view(2, -1)) == 0


@pytest.mark.parametrize(("work", "counts"), [
    (lambda x: x + x, (0, 0, 0)),
    (lambda x: x.sum().item(), (1, 0, 0)),
    (lambda x: bool((x > 0).any()), (1, 0, 0)),
    (lambda x: torch.equal(x, x), (1, 0, 0)),
    (lambda x: x.nonzero(), (0, 1, 0)),
    (lambda x: x[x > 0], (0, 1, 0)),
    (lambda x: x[torch.tensor([0, 1])], (0, 0, 0)),
    (lambda x: x.unique(), (0, 1, 0)),
    (lambda x: x.to("meta"), (0, 0, 1)),
    (lambda x: x.to(torch.float64), (0, 0, 0)),
])
def test_transfers_are_counted(work, counts):
    x = torch.arange(4.0)
    with Transfers() as seen:
        work(x)
    assert (seen.reads, seen.shapes, seen.moves) == counts
    assert seen.total == sum(counts)
