"""Chunks of a path through a model: their size and memory, where the samples are, and slopes that a path knows."""

import math

import pytest
import torch
from cases import ALL
from torch import nn
from torch.autograd import forward_ad

from smpcore import attribute, paths, trace_line
from smpcore.attribution.measurement import Measurement, chunk_size
from smpcore.attribution.preflight import probe
from smpcore.attribution.switch_events import _places
from smpcore.attribution.watched_model import WatchedModel
from smpcore.experiments.benchmarks import peak_bytes

pytestmark = pytest.mark.numeric

LINE = paths.line(torch.ones(6, dtype=torch.float64), -torch.arange(6, dtype=torch.float64))
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("name", ["convolutions and poolings", "mlp"])
def test_memory_does_not_grow_with_the_samples(name):
    model, start, end = next(case for case in ALL if case.name == name).build(0)
    path = paths.line(start, end)
    peaks = []
    for samples in (129, 1025):
        times = torch.linspace(0, 1, samples, dtype=torch.float64)
        peaks.append(peak_bytes(lambda times=times: attribute(model, path, times, chunk=33)))
    # Values, slopes and what is left of them and in doubt are kept for each interval, with the moments at which units
    # switch (24 bytes); where intervals are measured again, their ends, doubts and moments once more.
    outputs = attribute(model, path, times[:9]).total.numel()
    results = 8 * (samples - 129) * (1 + 4 * outputs + 3 + 2 + outputs + 3)
    assert peaks[0] > 10_000
    assert peaks[1] < peaks[0] * 1.1 + results


@pytest.mark.parametrize("path", [LINE, paths.line(LINE.start, LINE.end, length=0.7), paths.circle(6, seed=3),
                                  paths.circle(6, seed=3, radius=0.1)])
def test_a_path_that_knows_its_slope_measures_as_one_that_does_not(path):
    times = TIMES * 0.7
    dual = forward_ad.make_dual
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(path(dual(times, torch.ones_like(times)))).tangent
        torch.testing.assert_close(path.slope(times), slope, rtol=1e-13, atol=1e-15)
    model, *_ = next(case for case in ALL if case.name == "mlp").build(0)
    known, asked = attribute(model, path, times), attribute(model, lambda t: path(t), times)
    torch.testing.assert_close(known.slopes, asked.slopes, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(known.total, asked.total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [0, 7, 4095, 4096, 4101, 100_003])
def test_switches_are_found_eight_at_a_time_as_one_by_one(size):
    for part in (0.0, 0.01, 1.0):
        found = torch.rand(size, generator=torch.Generator().manual_seed(size)) < part
        assert torch.equal(_places(found), found.nonzero()[:, 0])


def test_a_chunk_holds_as_many_samples_as_its_layers_are_small():
    sizes = [chunk_size("cpu", width) for width in (8, 1000, 40_000, 10_000_000)]
    assert sizes[0] > sizes[1] > sizes[2] == 65
    assert sizes[3] == 2


def test_trying_a_model_takes_little_more_memory_than_the_smallest_chunk():
    """Detectors fill a machine's memory: three samples without a graph, beside two of what each layer gave."""
    torch.manual_seed(0)
    stages = [layer for n in range(4) for layer in (nn.Conv2d(8 if n else 3, 8, 3, padding=1), nn.BatchNorm2d(8),
                                                    nn.ReLU())]
    model = nn.Sequential(*stages, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)).double()
    watched = WatchedModel(model.eval().requires_grad_(False), paths.line(*torch.randn(2, 3, 32, 32)), None,
                           torch.float64)
    layouts, _ = probe(watched, TIMES, 1e-8)
    chunk = peak_bytes(lambda: Measurement(watched, layouts).part(TIMES[:2]))
    assert peak_bytes(lambda: probe(watched, TIMES, 1e-8)) < 1.5 * chunk


def test_both_signatures_of_batch_norm_are_measured_alike():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6).double().eval()
    for part in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        part.copy_(1 + torch.rand(6))

    def plain(x):
        return torch.batch_norm(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, norm.eps,
                                False)

    one, other = (attribute(lambda x, of=of: torch.relu(of(x) - 1), LINE, TIMES) for of in (norm, plain))
    torch.testing.assert_close(one.values, other.values)
    torch.testing.assert_close(one.total, other.total)


class Idle(nn.Module):
    """Six units of which the first two never move, on a path that comes back half-way."""

    def forward(self, x):
        still = torch.relu(0 * x[:, :1] + torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0], dtype=x.dtype))
        return torch.relu(x[:, :1]) + still.sum(1, keepdim=True)


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_what_is_no_sample_is_not_taken_for_one(copies):
    def stacked(x):
        return torch.relu(torch.stack([x] * (copies - 1) + [x - 0.3])).mean(0)

    expected = trace_line(stacked, LINE.start, LINE.end)
    assert expected.certified
    torch.testing.assert_close(attribute(stacked, LINE, TIMES).total, expected.smp)


def test_a_layer_at_rest_and_a_path_that_comes_back_half_way():
    times = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    found = attribute(Idle(), lambda t: (torch.sin(2 * t) + 0.25)[:, None], times, chunk=17)
    assert [layer.units for layer in found.layers] == [6, 1]
    assert float(found.total) == pytest.approx(4 * 2 * (1 - 0.25**2) ** 0.5, rel=1e-2)
    copies = attribute(lambda x: torch.relu(x.expand(3, *x.shape).contiguous()).mean(0), LINE, TIMES, chunk=17)
    torch.testing.assert_close(copies.total, attribute(torch.relu, LINE, TIMES).total)
