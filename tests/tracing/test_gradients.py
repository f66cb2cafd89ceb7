"""The curve that a trace holds, and integrated gradients from it: against the model, sums, midpoints and Captum."""

import sys

import pytest
import torch
from cases import ALL
from torch import nn
from torch.nn import functional as F

from smpcore import models, trace_line, tracing
from smpcore.models import reference_cnn, reference_line

pytestmark = pytest.mark.numeric

ONE = {"dtype": torch.float64}
STRAIGHT = [case for case in ALL if case.straight and not case.jumps]


def small(seed=3):
    torch.manual_seed(seed)
    return models.mlp(6, outputs=2, width=40, depth=2, seed=seed), *torch.randn(2, 6, **ONE)


def points(start, end, t):
    return start + t.reshape(-1, *[1] * start.dim()) * (end - start)


@pytest.mark.parametrize("case", STRAIGHT, ids=lambda case: case.name)
def test_the_curve_is_the_models_and_integrated_gradients_add_up(case):
    model, start, end = case.build()
    trace = trace_line(model, start, end)
    t = torch.rand(101, **ONE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.double()(points(start, end, t)).flatten(1)
    scale = float(trace.values.abs().max() + trace.slopes.abs().max())
    torch.testing.assert_close(trace.curve(t), plain, rtol=0, atol=1e-9 * scale)
    assert torch.equal(trace.knots[1:-1], trace.times)
    torch.testing.assert_close(trace.slopes.diff(dim=0), trace.jumps, rtol=0, atol=1e-9 * scale)
    for output in range(len(trace.smp)):
        found = tracing.integrated_gradients(model, start, end, output=output)
        assert found.shape == start.shape
        change = float(trace.values[-1, output] - trace.values[0, output])
        assert float(found.sum()) == pytest.approx(change, abs=1e-9 * max(1.0, scale))


def midpoints(model, start, end, steps, output=0):
    """Integrated gradients by that many midpoints."""
    total = torch.zeros_like(start)
    for t in ((torch.arange(steps, **ONE) + 0.5) / steps).split(2000):
        x = points(start, end, t).requires_grad_()
        total += torch.autograd.grad(model(x)[:, output].sum(), x)[0].sum(0)
    return (end - start) * total / steps


@pytest.mark.parametrize("build", [
    small, lambda: (reference_cnn(torch.float64), *reference_line()),
    lambda: (models.cnn((1, 10, 10), channels=6, depth=2, pooling="max", pool=3, stride=2, seed=1),
             *torch.randn(2, 1, 10, 10, **ONE, generator=torch.Generator().manual_seed(2))),
], ids=["mlp", "reference", "overlapping pools"])
def test_exact_gradients_are_what_many_midpoints_approach_and_the_bound_holds(build):
    model, start, end = build()
    trace, exact = trace_line(model, start, end), tracing.integrated_gradients(model, start, end)
    change = float(trace.values[-1, 0] - trace.values[0, 0])
    assert float(exact.sum()) == pytest.approx(change, abs=1e-9)
    for steps in (10, 50, 300, 20_000):
        found = midpoints(model, start, end, steps)
        assert abs(float(found.sum()) - change) <= float(trace.midpoint_error(steps)[0])
    # At each input the gradient's own variation is its share of the same kinks: as a sum of magnitudes over inputs
    # some multiple of SMP; its error falls as 1/steps.
    assert float((found - exact).abs().max()) < 1e-3 * float(exact.abs().max())


def test_the_bound_is_reached_by_the_worst_kink():
    # One kink of jump 1 in the middle of the second of two steps' cells: the error is 1/(2n) of it at most.
    start, end = torch.tensor([0.0], **ONE), torch.tensor([1.0], **ONE)
    worst = 0.0
    for place in (0.26, 0.5, 0.74):
        trace = trace_line(lambda x, place=place: F.relu(x - place), start, end)
        found = midpoints(lambda x, place=place: F.relu(x - place), start, end, 2)
        error = abs(float(found) - (1 - place))
        assert error <= float(trace.midpoint_error(2)) + 1e-12
        worst = max(worst, error / float(trace.midpoint_error(2)))
    assert worst > 0.95


def test_captum_approaches_the_exact_values():
    attributor = pytest.importorskip("captum.attr").IntegratedGradients
    model, start, end = small()
    exact = tracing.integrated_gradients(model, start, end, output=1)
    trace = trace_line(model, start, end, outputs=[1])
    errors = []
    for steps in (50, 5000):
        found, delta = attributor(model).attribute(end[None], start[None], target=1, n_steps=steps,
                                                   method="riemann_middle", return_convergence_delta=True)
        assert abs(float(delta)) <= float(trace.midpoint_error(steps)[0])
        errors.append(float((found[0] - exact).abs().max()))
    assert errors[1] < 0.1 * errors[0]
    assert errors[1] < 1e-3 * float(exact.abs().max())


def test_both_directions_give_one_curve_and_opposite_gradients():
    model, start, end = small()
    one, back = trace_line(model, start, end, length=2.0), trace_line(model, end, start, length=2.0)
    t = torch.linspace(0, 2, 41, **ONE)
    torch.testing.assert_close(one.curve(t), back.curve(2 - t).double(), rtol=0, atol=1e-12)
    forward, backward = (tracing.integrated_gradients(model, *ends) for ends in ((start, end), (end, start)))
    torch.testing.assert_close(forward, -backward, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.midpoint_error(10), trace_line(model, start, end).midpoint_error(10))


def test_stretches_change_nothing(monkeypatch):
    model, start, end = small()
    whole, curve = tracing.integrated_gradients(model, start, end), trace_line(model, start, end)
    monkeypatch.setitem(sys.modules["smpcore.tracing.trace"]._ROOM, "cpu", 400)
    torch.testing.assert_close(tracing.integrated_gradients(model, start, end), whole, rtol=0, atol=1e-12)
    t = torch.linspace(0, 1, 41, **ONE)
    torch.testing.assert_close(trace_line(model, start, end).curve(t), curve.curve(t), rtol=0, atol=1e-12)


def test_an_output_that_is_constant_has_no_gradients():
    start, end = torch.zeros(3, **ONE), torch.ones(3, **ONE)
    assert tracing.integrated_gradients(lambda x: x.new_ones(len(x), 1), start, end).tolist() == [0.0] * 3
    found = tracing.integrated_gradients(lambda x: {"z": 2 * x}, start, end, output=lambda found: found["z"][:, 1:2])
    assert found.tolist() == [0.0, 2.0, 0.0]


def test_the_curve_is_known_outside_gaps_alone():
    # The mask changes once, at 0.5 of the line, and the gap begins at the kink before.
    trace = trace_line(lambda x: F.relu(x - 0.5) + F.relu(x + 0.5) + x * (x > 0), *torch.tensor([[-1.0], [1.0]], **ONE))
    assert trace.gaps[0][0] == pytest.approx(0.25)
    known = torch.tensor([0.0, 0.1, 0.25], **ONE)
    x = 2 * known - 1
    torch.testing.assert_close(trace.curve(known)[:, 0], x * (x > 0) + F.relu(x - 0.5) + F.relu(x + 0.5))
    with pytest.raises(ValueError, match=r"the curve at t = 0.5 is not known.*gt changes"):
        trace.curve(torch.tensor([0.1, 0.5]))
    with pytest.raises(ValueError, match="no number of steps is known"):
        trace.midpoint_error(10)


REFUSED = [
    (lambda trace: trace.curve(0.5), TypeError, "t = 0.5: it must be a tensor"),
    (lambda trace: trace.curve(torch.tensor(0.5)), ValueError, "it must be .P,. times between 0 and the line's length"),
    (lambda trace: trace.curve(torch.tensor([1.5])), ValueError, "times between 0"),
    (lambda trace: trace.curve(torch.tensor([torch.nan])), ValueError, "times between 0"),
    (lambda trace: trace.midpoint_error(0), ValueError, "steps = 0"),
    (lambda trace: trace.midpoint_error(2.5), TypeError, "steps = 2.5"),
]


@pytest.mark.parametrize(("ask", "error", "words"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_asked_of_a_trace(ask, error, words):
    trace = trace_line(F.relu, *torch.tensor([[-1.0], [1.0]], **ONE))
    with pytest.raises(error, match=words):
        ask(trace)


@pytest.mark.parametrize(("model", "options", "words"), [
    (nn.GELU(), {}, "known on straight pieces only.*gelu is not straight"),
    (lambda x: x * (x > 0), {}, "gt changes"),
    (lambda x: x, {"output": lambda found: found}, "gives 3 outputs"),
    (lambda x: x, {"output": 7}, "indices go from 0 to 2"),
], ids=["gelu", "mask", "several", "index"])
def test_gradients_are_refused_where_the_pieces_are_not_known(model, options, words):
    with pytest.raises(ValueError, match=words):
        tracing.integrated_gradients(model, torch.full((3,), -1.0), torch.ones(3), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_gradients_on_a_gpu():
    model, start, end = small()
    here = tracing.integrated_gradients(model, start, end)
    there = tracing.integrated_gradients(model.cuda(), start.cuda(), end.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-10)
