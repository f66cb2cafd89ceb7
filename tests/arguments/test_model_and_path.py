"""What is asked of models and paths before a measurement: each refusal a sentence."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from smpcore import attribute, paths, trace_line
from smpcore.arguments import refuse_training, with_tangent

START, END = torch.linspace(-1, -0.7, 4, dtype=torch.float64), torch.linspace(2, 1.1, 4, dtype=torch.float64)
TIMES = torch.linspace(0, 1, 11, dtype=torch.float64)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


class Efficient(nn.Module):
    """With the switch that EfficientNet's libraries have."""

    def __init__(self):
        super().__init__()
        self.read, self.memory_efficient = nn.Linear(4, 1), True

    def set_swish(self, memory_efficient=True):
        self.memory_efficient = memory_efficient

    def forward(self, x):
        x = self.read(x)
        return Swish.apply(x) if self.memory_efficient else x * torch.sigmoid(x)


def test_a_custom_swish_is_refused_with_the_librarys_own_switch():
    model = nn.Sequential(Efficient())
    with pytest.raises(ValueError, match=r"call model\.0\.set_swish\(memory_efficient=False\), or give it"):
        attribute(model, paths.line(START, END), TIMES)
    model[0].set_swish(memory_efficient=False)
    assert attribute(model, paths.line(START, END), TIMES).total.tolist() == [0.0]


class Asserts(nn.Module):
    def forward(self, x):
        if x.shape[-1] != 77:
            raise AssertionError
        return x


class Two(nn.Module):
    def forward(self, image, mask, scale=1.0):
        return image * mask * scale


@pytest.mark.parametrize(("model", "words"), [
    (Asserts(), r"AssertionError at .*test_model_and_path.py:\d+, raise AssertionError"),
    (Two(), r"takes 2 inputs \(image, mask\): a wrapper with one tensor is wanted"),
    (lambda x, y: x + y, r"takes 2 inputs \(x, y\)"),
    (lambda x: {}["nothing"], "does not run on inputs .*nothing"),
], ids=["an empty assertion", "two inputs", "a function of two", "a key"])
def test_a_model_that_does_not_run_is_refused_in_a_sentence(model, words):
    with pytest.raises(ValueError, match=words):
        trace_line(model, START, END)
    with pytest.raises(ValueError, match=words):
        attribute(model, paths.line(START, END), TIMES)


def test_a_model_that_holds_a_graph_anywhere_can_be_copied():
    model = nn.Sequential(nn.Linear(4, 1))
    model.register_buffer("membrane", (2 * model[0].weight).sum())
    model.kept = {"spikes": [model[0].weight * 3]}
    membrane = model.membrane
    assert trace_line(model, START, END).certified
    assert model.membrane is membrane
    assert not membrane.is_leaf


def test_training_mode_is_refused_for_every_random_layer():
    for layer in (nn.Dropout(), nn.BatchNorm1d(4), nn.RReLU()):
        with pytest.raises(ValueError, match=rf"module 1 \({type(layer).__name__}\) is in training mode.*model.eval"):
            refuse_training(nn.Sequential(nn.Linear(4, 4), layer))
    refuse_training(nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval())


@pytest.mark.parametrize(("path", "error", "words"), [
    (lambda t: t.detach()[:, None], ValueError, "the reference carries no tangent"),
    (lambda t: t[1:, None], ValueError, "for 11 times the reference returns shape"),
    (lambda t: t.sum(), ValueError, r"returns shape \(\)"), (lambda t: 1.0, TypeError, "the reference returns a float"),
])
def test_a_path_without_tangent_or_shape_is_refused(path, error, words):
    with forward_ad.dual_level(), pytest.raises(error, match=words):
        with_tangent(path, TIMES, "reference")


def test_a_paths_tangent_is_its_slope():
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(with_tangent(lambda t: (3 * t)[:, None], TIMES)).tangent
        assert found.tolist() == [[3.0]] * len(TIMES)


class Flow(nn.Module):
    """A differential equation whose right-hand side is a network."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.field, self.options = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), options

    def forward(self, x):
        odeint = pytest.importorskip("torchdiffeq").odeint
        return odeint(lambda t, y: self.field(y), x, torch.tensor([0.0, 1.0]).to(x), **self.options)[-1]


def test_an_adaptive_solver_is_refused_and_a_fixed_grid_measured():
    pytest.importorskip("torchdiffeq")
    words = "adaptive solver of differential equations controls its steps.*method='rk4'"
    with pytest.raises(ValueError, match=words):
        attribute(Flow(), paths.line(START, END), TIMES)
    trace = trace_line(Flow(), START, END)
    assert not trace.certified
    assert "adaptive solver" in trace.gaps[0][2]
    fixed = Flow(method="rk4", options={"step_size": 0.25})
    trace = trace_line(fixed, START, END)
    assert trace.certified, trace.gaps
    found = attribute(fixed, paths.line(START, END), torch.linspace(0, 1, 2001, dtype=torch.float64))
    torch.testing.assert_close(found.total, trace.smp, rtol=0.02, atol=1e-9)
