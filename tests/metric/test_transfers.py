"""How often a measurement makes a GPU wait for the CPU: counted without a GPU, by the operations that do so.

A number read out of a tensor, or a result whose size depends on the data, stops the stream of instructions until
all before it is done. That may happen a fixed number of times in a chunk; it must not grow with what is in it.
"""

import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transfers import Transfers

from smpcore import attribute, find_kinks, propagation, smp, trace_line
from smpcore.models import cnn, mlp, reference_cnn, reference_line
from smpcore.paths import circle, line

START, END = reference_line()


def waits(work) -> int:
    with Transfers() as seen:
        work()
    return seen.total


MAKERS = {torch.tensor, torch.as_tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.eye, torch.arange,
          torch.linspace, torch.rand, torch.randn, torch.randint}


class HostMade(TorchFunctionMode):
    """Counts tensors that are made without a device: beside a model on a GPU each is one on the host, to be moved."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        already = func is torch.as_tensor and isinstance(args[0], torch.Tensor)
        self.count += func in MAKERS and kwargs.get("device") is None and not already
        return func(*args, **kwargs)


def made_on_the_host(work) -> int:
    with HostMade() as seen:
        work()
    return seen.count


def test_what_is_made_on_the_host_is_counted_without_a_gpu():
    here = torch.ones(3)
    assert made_on_the_host(lambda: torch.zeros(3) + torch.arange(3)) == 2
    assert made_on_the_host(lambda: torch.zeros(3, device=here.device) + here.new_zeros(3) + torch.as_tensor(here)) == 0


def test_attribution_makes_as_little_on_the_host_for_many_samples_as_for_few():
    def making(samples, chunk):
        times = torch.linspace(0, 1, samples, dtype=torch.float64)
        return made_on_the_host(lambda: attribute(reference_cnn(), line(START, END), times, chunk=chunk))

    assert making(65, 65) == making(17, 17)
    # Not more than a number or two of each of five layers in every further chunk.
    assert making(97, 17) - making(33, 17) <= 4 * 2 * 5


def test_the_trace_makes_on_the_host_by_rounds_not_by_kinks():
    few, many = (made_on_the_host(lambda part=part: trace_line(reference_cnn(), START, START + part * (END - START)))
                 for part in (0.01, 0.1))
    assert many <= 2 * few


def attributing(model, samples, chunk):
    times = torch.linspace(0, 1, samples, dtype=torch.float64)
    return waits(lambda: attribute(model, line(START, END), times, chunk=chunk))


@pytest.fixture
def one_look(monkeypatch):
    """Without second looks, whose rounds go on as long as they find something: their number is each model's own."""
    monkeypatch.setattr(sys.modules["smpcore.attribution.attribute"], "refine",
                        lambda measure, course, size, numbers: torch.zeros_like(course.total))


def test_second_looks_wait_no_more_often_for_more_samples():
    assert attributing(reference_cnn(), 65, 65) <= attributing(reference_cnn(), 17, 17)


def test_attribution_waits_as_often_for_many_samples_in_a_chunk_as_for_few(one_look):
    assert attributing(reference_cnn(), 65, 65) == attributing(reference_cnn(), 17, 17)


def test_attribution_waits_equally_often_in_each_chunk():
    """Chunks share one sample: 33, 65 and 97 samples are 2, 4 and 6 chunks of 17."""
    two, four, six = (attributing(reference_cnn(), samples, 17) for samples in (33, 65, 97))
    # One more or less: where a chunk has nothing of a kind, its places are not asked for.
    assert six - four == pytest.approx(four - two, abs=5)
    # Five layers that can switch, some twenty waits for each: switches found, their places, their joint kinks.
    assert (four - two) / 2 <= 25 * 5


def test_attribution_waits_as_often_for_wide_layers_as_for_narrow_ones(one_look):
    narrow, wide = (cnn((1, 28, 28), channels=channels, depth=1, pooling="max") for channels in (2, 8))
    assert attributing(wide, 17, 17) == attributing(narrow, 17, 17)


def test_attribution_waits_as_often_for_many_outputs_as_for_one():
    one, many = (mlp((1, 28, 28), outputs, width=8, depth=2) for outputs in (1, 9))
    # One more for each further output at the very most: each is a backward pass of its own.
    assert attributing(many, 17, 17) <= attributing(one, 17, 17) + 8


def test_the_trace_waits_by_rounds_not_by_kinks():
    def tracing(part):
        found = []
        count = waits(lambda: found.append(trace_line(reference_cnn(), START, START + part * (END - START))))
        return count, len(found[0].times)

    (few, dozen), (more, hundreds) = tracing(0.01), tracing(0.1)
    assert hundreds > 10 * dozen
    assert more <= few
    # Along half the line the pieces no longer fit one chunk; still the waits are far fewer than the kinks.
    most, thousand = tracing(0.5)
    assert most < 0.7 * thousand


@pytest.mark.parametrize("samples", [501, 2001])
def test_the_metric_waits_as_often_for_many_signals_as_for_one(samples):
    signals = torch.randn(20, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(1)
    assert waits(lambda: smp(signals)) <= waits(lambda: smp(signals[:1]))


def test_kinks_are_found_without_a_wait_for_each():
    def finding(count):
        times = torch.linspace(0, 1, 2001, dtype=torch.float64)
        places = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
        found = []
        total = waits(lambda: found.append(find_kinks((times[:, None] - places).abs().sum(1), 1 / 2000)))
        assert len(found[0].times) == count
        return total

    # Where kinks lie close together the residual is gone through again, a fixed number of times.
    assert finding(64) <= finding(16) + 5
    assert finding(8) <= finding(2) + 5


def test_a_path_and_the_single_block_predictions_wait_for_nothing_that_grows():
    path = circle((1, 8, 8), seed=0)
    few, many = (torch.linspace(0, 6, samples, dtype=torch.float64) for samples in (3, 300))
    assert waits(lambda: path(many)) == waits(lambda: path(few)) == 0
    assert made_on_the_host(lambda: path(many)) == made_on_the_host(lambda: path(few))
    small, large = (torch.rand(count, dtype=torch.float64) + 1 for count in (3, 300))
    assert waits(lambda: propagation.two_slope_smp(0 * large, large, large, 1.0)) == waits(
        lambda: propagation.two_slope_smp(0 * small, small, small, 1.0))
