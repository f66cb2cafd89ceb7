"""What a model does where no call of Python shows it: refused, warned of or not certified, never a silent 0."""

import warnings

import pytest
import torch
from custom import Doubled
from torch import nn
from torch.nn import functional as F

from smpcore import attribute, paths, trace_line

START, END = torch.linspace(-1, -0.7, 4, dtype=torch.float64), torch.linspace(2, 1.1, 4, dtype=torch.float64)
TIMES = torch.linspace(0, 1, 51, dtype=torch.float64)


def measured(model):
    return attribute(model, paths.line(START, END), TIMES)


def _bump(x: torch.Tensor) -> torch.Tensor:
    """Too narrow for any check at a few points: only its operations betray it."""
    return torch.relu(x - 0.5) - 2 * torch.relu(x - 0.50005) + torch.relu(x - 0.5001)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        bump = torch.jit.script(_bump)
    return lambda x: x + torch.relu(x) + 1e3 * bump(x)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.read = nn.RNN(2, 5, nonlinearity="relu", batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        x = x.reshape(-1, 2, 2)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 2), batch_first=True)
        return self.read(self.rnn(packed)[1][0])


#: Each is refused by `attribute` by this name, and certified by no trace.
HIDDEN = {
    "TorchScript": (scripted, "model runs relu where it cannot be seen .TorchScript"),
    "vmap": (lambda: lambda x: torch.vmap(torch.relu)(x), "model runs torch.vmap where it cannot be seen"),
    "a packed recurrence": (Packed, r"rnn:rnn_relu switches inside \(relu\).*no PackedSequence"),
    "linalg.norm": (lambda: lambda x: torch.linalg.norm(x, 1, 1)[:, None], "model:linalg_norm switches inside"),
    "linalg.matrix_norm": (lambda: lambda x: torch.linalg.matrix_norm(x.reshape(-1, 2, 2), 1)[:, None],
                           "model:linalg_matrix_norm switches inside"),
    "a ranking loss": (lambda: lambda x: F.margin_ranking_loss(x, torch.zeros_like(x), torch.ones_like(x),
                                                               reduction="none"), "margin_ranking_loss switches"),
    "copysign": (lambda: lambda x: torch.copysign(x, torch.ones_like(x)), "model:copysign switches inside"),
    "angle": (lambda: lambda x: x * x.angle(), "model:angle switches inside"),
    "i0e": (lambda: torch.special.i0e, "model:special_i0e switches inside"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_switches_out_of_sight_is_refused_by_name(name):
    make, match = HIDDEN[name]
    with pytest.raises(ValueError, match=match):
        measured(make())


@pytest.mark.parametrize("name", HIDDEN)
def test_no_trace_certifies_what_is_out_of_sight(name):
    trace = trace_line(HIDDEN[name][0](), START, END)
    assert not trace.certified
    assert trace.gaps[0][:2] == (0.0, 1.0)


@pytest.mark.parametrize("inner", [False, True], ids=["a function", "a module inside"])
def test_what_is_compiled_runs_as_it_is_written(inner):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU()) if inner else torch.relu
    compiled = torch.compile(plain, backend="eager")
    read = nn.Linear(6, 1) if inner else nn.Identity()
    model = nn.Sequential(compiled, read) if inner else compiled
    expected = nn.Sequential(plain, read) if inner else plain
    assert float(measured(model).total.sum()) > 0
    torch.testing.assert_close(measured(model).total, measured(expected).total)
    trace = trace_line(model, START, END)
    assert trace.certified
    torch.testing.assert_close(trace.smp, trace_line(expected, START, END).smp)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mask = x > 0
        return x * ctx.mask

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * ctx.mask

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.mask




class Around(nn.Module):
    """A custom function with nothing that needs a gradient before it, and nothing that is followed at all."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after, self.function = nn.Linear(4, 8), nn.Linear(8, 1), function

    def forward(self, x):
        return self.after(self.function.apply(self.before(x)))


def test_a_custom_function_is_warned_of():
    with pytest.warns(UserWarning, match=r"custom autograd function \(Hidden\): .* not counted, and gt does"):
        measured(Around(Hidden))
    with pytest.warns(UserWarning, match=r"custom autograd function \(Doubled\): .* is not counted$"):
        measured(Around(Doubled))
    assert not trace_line(Around(Hidden), START, END).certified
    assert trace_line(Around(Doubled), START, END).certified


def _smooth(x):
    return (F.cosine_similarity(x, x.flip(1) + 1)[:, None] + x.std(1, keepdim=True) + x.logsumexp(1, keepdim=True)
            + F.normalize(x + 5, dim=1) + torch.linalg.norm(x + 9, dim=1, keepdim=True)
            + F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).flatten(1))


def test_what_is_smooth_all_the_same_is_let_through():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured(_smooth).total.tolist() == [0.0] * 4
