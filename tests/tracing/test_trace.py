"""Every kink on a line: against brute force, one switch of each kind, and what is refused or not certified."""

import math
import sys

import pytest
import torch
from brute import brute_smp
from cases import ALL, UNITS
from torch import nn
from torch.nn import functional as F

from smpcore import trace_line
from smpcore.experiments.benchmarks import peak_bytes, transform_line
from smpcore.models import reference_cnn, reference_line
from smpcore.units import table as switches

pytestmark = pytest.mark.numeric

ONE = {"dtype": torch.float64}


def line_of(start, end):
    return lambda t: start + t.reshape(-1, *[1] * start.dim()) * (end - start)


@pytest.mark.parametrize("case", [case for case in ALL if case.straight and not case.jumps], ids=lambda case: case.name)
def test_smp_equals_brute_force_and_is_certified(case):
    model, start, end = case.build()
    trace = trace_line(model, start, end)
    exact, _ = brute_smp(model.double(), line_of(start, end), 1.0, samples=101)
    assert trace.certified, trace.gaps
    torch.testing.assert_close(trace.smp, exact, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(trace.smp, trace.jumps.abs().sum(0))
    assert bool((trace.times.diff() > 0).all())
    assert len(trace.layers) == len(trace.times) == len(trace.jumps)


@pytest.mark.parametrize("case", [case for case in ALL if not case.straight or case.jumps], ids=lambda case: case.name)
def test_what_is_not_straight_is_not_certified(case):
    trace = trace_line(*case.build())
    assert not trace.certified
    assert trace.gaps[0][0] < trace.gaps[0][1]
    assert len(trace.gaps[0][2]) > 10


def test_every_unit_of_the_table_has_a_case():
    covered = {case.name.split(",")[0] for case in UNITS}
    assert set(switches.TABLE) <= covered


# What one unit does on the line x = t from -1 to 3: one switch, at a known time, by a known unit and jump.
SWITCHES = [
    ("relu", F.relu, 1.0, 1.0), ("leaky_relu", lambda x: F.leaky_relu(x, 0.25), 1.0, 0.75),
    ("abs", torch.abs, 1.0, 2.0), ("clamp", lambda x: x.clamp(max=1.5), 2.5, -1.0),
    ("clamp_min", lambda x: x.clamp_min(0.5), 1.5, 1.0), ("clamp_max", lambda x: x.clamp_max(0.5), 1.5, -1.0),
    ("hardtanh", lambda x: F.hardtanh(x, -9, 2.0), 3.0, -1.0), ("relu6", lambda x: F.relu6(x), 1.0, 1.0),
    ("hardsigmoid", lambda x: F.hardsigmoid(2 * x - 1), 3.0, -1 / 3),
    ("softshrink", lambda x: F.softshrink(x, 2.0), 3.0, 1.0),
    ("threshold", lambda x: F.threshold(x, 0.5, 0.5), 1.5, 1.0),
    ("prelu", lambda x: F.prelu(x, torch.tensor([0.5], **ONE)), 1.0, 0.5),
    ("rrelu", lambda x: F.rrelu(x, 0.5, 0.5), 1.0, 0.5),
    ("maximum", lambda x: torch.maximum(x, 1 - x), 1.5, 2.0), ("minimum", lambda x: torch.minimum(x, 1 - x), 1.5, -2.0),
    ("fmax", lambda x: torch.fmax(x, 1 - x), 1.5, 2.0), ("fmin", lambda x: torch.fmin(x, 1 - x), 1.5, -2.0),
    ("max", lambda x: torch.cat([x, 1 - x], 1).max(1, keepdim=True).values, 1.5, 2.0),
    ("min", lambda x: torch.cat([x, 1 - x], 1).min(1, keepdim=True)[0], 1.5, -2.0),
    ("amax", lambda x: torch.cat([x, 1 - x], 1).amax(1, True), 1.5, 2.0),
    ("amin", lambda x: torch.cat([x, 1 - x], 1).amin((1,), True), 1.5, -2.0),
    ("max_pool1d", lambda x: F.max_pool1d(torch.cat([x, 1 - x], 1)[:, None], 2)[:, 0], 1.5, 2.0),
    ("adaptive_max_pool1d", lambda x: F.adaptive_max_pool1d(torch.cat([x, 1 - x], 1)[:, None], 1)[:, 0], 1.5, 2.0),
    ("max_pool2d", lambda x: F.max_pool2d(torch.cat([x, 1 - x], 1)[:, None, None], (1, 2)).flatten(1), 1.5, 2.0),
    ("max_pool3d", lambda x: F.max_pool3d(torch.cat([x, 1 - x], 1)[:, None, None, None], (1, 1, 2)).flatten(1), 1.5,
     2.0),
]


@pytest.mark.parametrize(("op", "unit", "time", "jump"), SWITCHES, ids=[row[0] for row in SWITCHES])
def test_one_switch_of_each_kind_has_its_time_jump_and_layer(op, unit, time, jump):
    trace = trace_line(unit, torch.tensor([-1.0], **ONE), torch.tensor([3.0], **ONE), length=4.0)
    assert trace.certified, trace.gaps
    assert trace.layers == [f"model:{op}"]
    assert trace.times.tolist() == pytest.approx([time], abs=1e-12)
    assert trace.jumps[:, 0].tolist() == pytest.approx([jump], abs=1e-12)


def test_a_window_can_have_two_kinks():
    # 1→-1, -3→1, -5, -5 behind ReLU: the winner falls to zero at 0.5, the next one rises from it at 0.75.
    start, end = torch.tensor([[1.0, -3], [-5, -5]]), torch.tensor([[-1.0, 1], [-5, -5]])
    trace = trace_line(lambda x: F.max_pool2d(F.relu(x[:, None]), 2).flatten(1), start, end)
    assert trace.times.tolist() == pytest.approx([0.5, 0.75], abs=1e-13)
    assert trace.jumps[:, 0].tolist() == pytest.approx([2.0, 4.0])
    # Both corners are with zero, so they are the ReLU's.
    assert trace.layers == ["model:relu", "model:relu"]


def test_a_relu_that_a_skip_connection_reads_is_not_fused_away():
    def model(x):
        y = F.relu(x)
        return torch.cat([F.max_pool1d(y, 2), y.sum(-1, keepdim=True)], 1).flatten(1)

    start, end = torch.tensor([[5.0, -1.0]]), torch.tensor([[5.0, 1.0]])
    trace = trace_line(model, start, end)
    assert trace.times.tolist() == pytest.approx([0.5])
    assert trace.jumps[0].tolist() == pytest.approx([0.0, 2.0])


def test_reference_cnn():
    net, (start, end) = reference_cnn(torch.float32), reference_line()
    trace = trace_line(net, start, end)
    assert trace.certified, trace.gaps
    assert len(trace.times) == 2470
    assert float(trace.smp) == pytest.approx(8.402243097653, abs=1e-11)
    by_layer = dict.fromkeys(trace.layers, 0.0)
    for name, jump in zip(trace.layers, trace.jumps[:, 0].abs().tolist(), strict=True):
        by_layer[name] += jump
    assert [round(by_layer[name], 2) for name in (
        "1:relu", "2:max_pool2d", "4:relu", "5:max_pool2d", "8:relu")] == [0.85, 3.48, 1.01, 2.92, 0.14]
    # The caller's model stays as it was.
    assert next(net.parameters()).dtype == torch.float32


def small():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)).double()
    return net, torch.randn(6, **ONE), torch.randn(6, **ONE)


def test_length_scales_and_reversal_mirrors_to_the_last_bit():
    net, start, end = small()
    one, four, back = (trace_line(net, *line) if scale == 1 else trace_line(net, *line, length=scale)
                       for line, scale in (((start, end), 1), ((start, end), 4.0), ((end, start), 1)))
    assert len(one.times) > 10
    assert torch.equal(four.times, one.times * 4)
    assert torch.equal(four.jumps, one.jumps / 4)
    assert torch.equal(back.jumps, one.jumps.flip(0))
    assert torch.equal(back.times, 1 - one.times.flip(0)) or torch.equal(one.times, 1 - back.times.flip(0))
    assert back.layers == one.layers[::-1]


def test_outputs_are_chosen_by_index_or_callable():
    net, start, end = small()
    both = trace_line(net, start, end)
    assert torch.allclose(trace_line(net, start, end, outputs=[1]).smp, both.smp[1:])
    named = trace_line(lambda x: {"z": net(x)}, start, end, outputs=lambda found: found["z"])
    assert torch.allclose(named.smp, both.smp)


def test_equal_ends_a_line_on_a_boundary_and_a_kink_at_the_end():
    net, start, _ = small()
    assert len(trace_line(net, start, start).times) == 0
    flat = trace_line(F.relu, torch.zeros(2), torch.zeros(2))
    assert flat.certified
    assert flat.smp.tolist() == [0.0, 0.0]
    assert len(trace_line(F.relu, torch.tensor([0.0]), torch.tensor([1.0])).times) == 0


def test_units_that_switch_together_are_one_kink():
    trace = trace_line(lambda x: F.relu(x) + 2 * F.relu(-x), torch.tensor([-1.0]), torch.tensor([2.0]))
    assert trace.times.tolist() == pytest.approx([1 / 3])
    assert trace.jumps[:, 0].tolist() == pytest.approx([9.0])


def test_kinks_closer_than_float64_can_part_are_one():
    trace = trace_line(lambda x: F.relu(x) + F.relu(x - 1e-16), torch.tensor([-1.0]), torch.tensor([1.0]))
    assert len(trace.times) == 1
    assert float(trace.smp) == pytest.approx(4.0)


class MyRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy().clip(0))

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(("unit", "reason"), [
    (lambda x: x * (x > 0), "gt changes"), (lambda x: torch.where(x > 0, x, 0 * x), "gt changes"),
    (F.gelu, "gelu is not straight"), (lambda x: x * x, "is not straight"),
    (lambda x: x.sort(1)[0], "sort"), (lambda x: x + torch.round(x), "round"),
    (lambda x: x.topk(1)[0], "topk"),
], ids=["mask", "where", "gelu", "product", "sort", "round", "topk"])
def test_what_cannot_be_followed_is_a_gap_by_name(unit, reason):
    trace = trace_line(unit, torch.tensor([-1.0, 0.3]), torch.tensor([1.0, 0.2]))
    assert not trace.certified
    assert any(reason in gap[2] for gap in trace.gaps)
    assert "not certified" in repr(trace)


def test_a_gap_ends_where_the_unit_is_straight_again():
    # The mask changes once; away from that stretch the ReLU's kink is found, and certified.
    trace = trace_line(lambda x: x * (x > 0) + F.relu(x - 0.9), torch.tensor([-1.0]), torch.tensor([1.0]))
    assert trace.gaps
    assert all(gap[0] <= 0.5 <= gap[1] for gap in trace.gaps)


def test_what_the_mode_cannot_see_is_found_by_asking_the_plain_model():
    hidden = [0]

    def model(x):
        hidden[0] += 1
        return x * hidden[0]

    trace = trace_line(model, torch.tensor([-1.0]), torch.tensor([1.0]))
    assert not trace.certified
    assert "something unseen" in trace.gaps[0][2] or "does not reach" in trace.gaps[0][2]


GOOD = torch.zeros(3)
REFUSED = [
    (([0.0], GOOD), {}, TypeError, "start is a list"), ((GOOD, GOOD.long()), {}, TypeError, "needs floating numbers"),
    ((GOOD, torch.zeros(4)), {}, ValueError, "one shape"),
    ((GOOD, GOOD / 0), {}, ValueError, "NaN or infinite at index"),
    ((GOOD, GOOD), {"length": 0.0}, ValueError, "must be positive"),
    ((GOOD, GOOD), {"length": -1}, ValueError, "positive"), ((GOOD, GOOD), {"length": 10**400}, ValueError, "positive"),
    ((GOOD, GOOD), {"length": math.nan}, ValueError, "positive"),
    ((GOOD, GOOD), {"length": "1"}, TypeError, "a number"),
    ((GOOD, GOOD), {"dtype": torch.int32}, TypeError, "floating torch type"),
    ((GOOD, torch.zeros(3, device="meta")), {}, ValueError, "device"),
]


@pytest.mark.parametrize(("line", "options", "error", "words"), REFUSED, ids=[row[3] + str(row[1]) for row in REFUSED])
def test_bad_lines_are_refused_in_a_sentence(line, options, error, words):
    with pytest.raises(error, match=words):
        trace_line(F.relu, *line, **options)


def _view_of_a_constant(x):
    buffer = torch.zeros(1, 6)
    buffer[:, :3].copy_(x)
    return buffer


def _assigned(x):
    x.data = 2 * x
    return x


@pytest.mark.parametrize(("model", "words"), [
    (lambda x: x if x.sum() > 0 else -x, "takes numbers out of a tensor"),
    (lambda x: x * float(x[0, 0]), "takes numbers out of a tensor"),
    (lambda x: MyRelu.apply(x), "takes numbers out of a tensor"),
    (_view_of_a_constant, "a view of a constant tensor"),
    (lambda x: torch.relu(x).log(), "NaN or infinite on the line"),
    (lambda x: F.dropout(x), "call model.eval"),
    (lambda x: torch.add(x, x, out=torch.empty(1, 3)), "out=… is not followed|writes into out"),
    (lambda x: x.sum(), "first dimension must be the inputs"),
    (lambda x: F.grid_sample(x.view(-1, 1, 1, 3), x.new_zeros(len(x), 1, 1, 2), align_corners=False).flatten(1),
     "cannot be followed along a line"),
    (_assigned, "assigns to an attribute"),
    (lambda x: x + (4 * x).long().relu(), "model:relu of a tensor that is not of a floating type"),
], ids=["branch", "float", "numpy", "view", "nan", "dropout", "out", "batch", "no derivative", "data", "whole numbers"])
def test_models_that_cannot_be_traced_are_refused_in_a_sentence(model, words):
    with pytest.raises((ValueError, TypeError), match=words):
        trace_line(model, torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([1.0, -2.0, 1.0]))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval"):
        trace_line(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), GOOD, GOOD + 1)


def test_memory_stays_bounded_and_rounds_of_stretches_change_nothing(monkeypatch):
    net, start, end = small()
    whole = trace_line(net, start, end)
    monkeypatch.setitem(sys.modules["smpcore.tracing.trace"]._ROOM, "cpu", 400)
    pieces = trace_line(net, start, end)
    assert len(pieces.times) == len(whole.times)
    torch.testing.assert_close(pieces.times, whole.times, rtol=0, atol=1e-12)
    torch.testing.assert_close(pieces.jumps, whole.jumps)
    assert pieces.layers == whole.layers


def test_more_pieces_than_fit_a_billionth_of_the_line_are_out_of_memory(monkeypatch):
    monkeypatch.setitem(sys.modules["smpcore.tracing.trace"]._ROOM, "cpu", 1)
    close = torch.arange(40, **ONE) * 1e-11
    with pytest.raises(MemoryError, match="more pieces than fit"):
        trace_line(lambda x: F.relu(x - close).sum(1, keepdim=True), torch.tensor([-1.0]), torch.tensor([1.0]))


def test_kinks_of_a_plain_stack_are_those_of_another_algorithm():
    """A trace that transforms the line layer by layer, written for stacks of layers alone."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 24),
                        nn.ReLU(), nn.Linear(24, 1)).double()
    start, end = 3 * torch.randn(2, 2, 8, 8, **ONE)
    trace, other = trace_line(net, start, end), transform_line(net, start, end)
    jumps = trace.jumps[:, 0].abs() > 1e-9 * trace.jumps.abs().max()
    theirs = other.jumps.abs() > 1e-9 * other.jumps.abs().max()
    assert trace.certified
    assert int(jumps.sum()) == int(theirs.sum()) > 100
    torch.testing.assert_close(trace.times[jumps], other.times[theirs], rtol=0, atol=1e-10)
    torch.testing.assert_close(trace.jumps[jumps, 0], other.jumps[theirs], rtol=0,
                               atol=1e-8 * float(trace.jumps.abs().max()))


def test_memory_grows_by_the_results_alone_and_stays_small_at_fifteen_thousand_kinks():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 64), nn.ReLU(),
        nn.Linear(64, 10)).double()
    start, end = torch.randn(2, 3, 32, 32, **ONE)
    peaks, kinks = [], []
    for part in (0.04, 0.16):
        found = []
        peaks.append(peak_bytes(lambda part=part, found=found: found.append(
            trace_line(net, start, start + part * (end - start)))))
        kinks.append(len(found[0].times))
    assert kinks[1] > 3 * kinks[0] > 900
    # Times, and slopes and values of ten outputs, as found, joined, and differenced: a few copies of 21 numbers.
    each = 8 * 21 * 6
    assert peaks[1] < 1.1 * peaks[0] + each * (kinks[1] - kinks[0])
    assert 1.1 * max(peaks) + each * 15_000 < 400e6


def test_float32_is_measured_on_request():
    net, start, end = small()
    single = trace_line(net, start, end, dtype=torch.float32)
    assert float(single.smp[0]) == pytest.approx(float(trace_line(net, start, end).smp[0]), rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_kinks_on_a_gpu():
    net, start, end = small()
    here, there = trace_line(net, start, end), trace_line(net.cuda(), start.cuda(), end.cuda())
    torch.testing.assert_close(there.times.cpu(), here.times, rtol=0, atol=1e-10)
    torch.testing.assert_close(there.smp.cpu(), here.smp)
