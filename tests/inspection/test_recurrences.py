"""Recurrent layers, unrolled: the numbers of torch's own, and every unit in sight."""

import itertools
import warnings

import pytest
import torch
from brute import brute_smp
from torch import nn
from torch.utils._pytree import tree_leaves

from smpcore import attribute, paths, trace_line
from smpcore.inspection import Opening

KINDS = {"relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k), "tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Looking(Opening):
    """Opens what can be opened, and notes the calls."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, "__name__", ""))
        return (self.inside(func) or func)(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_unrolled_layers_give_the_numbers_of_torch(kind):
    torch.manual_seed(0)
    for layers, both, first, bias, given in itertools.product((1, 2), *[(False, True)] * 4):
        for projected in (0, 3) if kind == "lstm" else (0,):
            net = KINDS[kind](4, 5, num_layers=layers, bidirectional=both, batch_first=first, bias=bias,
                              **({"proj_size": 3} if projected else {})).double()
            x, many = torch.randn(3, 7, 4).double(), (3 if first else 7, layers * (1 + both))
            state = torch.randn(many[1], many[0], projected or 5).double()
            state = (state, torch.randn(many[1], many[0], 5).double()) if kind == "lstm" else state
            args = (x, state) if given else (x,)
            with Looking() as seen:
                found = net(*args)
            assert "linear" in seen.names
            torch.testing.assert_close(tree_leaves(found), tree_leaves(net(*args)))


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_unrolled_cells_give_the_numbers_of_torch(cell):
    torch.manual_seed(0)
    for bias in (False, True):
        net, x = cell(4, 5, bias=bias), torch.randn(3, 4)
        with Looking() as seen:
            found = net(x)
        assert "linear" in seen.names
        torch.testing.assert_close(tree_leaves(found), tree_leaves(net(x)))


class Recurrent(nn.Module):
    def __init__(self, net, last):
        super().__init__()
        self.net, self.last, self.read = net, last, nn.Linear(net.hidden_size * (2 if last is None else 1), 1)

    def forward(self, x):
        x = x.reshape(-1, 5, 2)
        if not self.last:
            return self.read(self.net(x)[0][:, -1])
        state = None
        for moment in x.unbind(1):
            state = self.net(moment, state)
        return self.read(state[0] if isinstance(state, tuple) else state)


def drawn(net, last=False):
    torch.manual_seed(1)
    model = Recurrent(net, last).double()
    nn.init.normal_(model.read.weight)
    for parameter in model.net.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model, *(3 * torch.randn(2, 10, dtype=torch.float64))


@pytest.mark.parametrize(("net", "last"), [
    (lambda: nn.RNN(2, 6, num_layers=2, nonlinearity="relu", batch_first=True), False),
    (lambda: nn.RNN(2, 6, nonlinearity="relu", batch_first=True, bidirectional=True), None),
    (lambda: nn.RNNCell(2, 6, nonlinearity="relu"), True)], ids=["two layers", "both ways", "a cell"])
def test_a_recurrence_of_relus_is_traced_and_attributed(net, last):
    model, start, end = drawn(net(), last)
    path = paths.line(start, end)
    trace, (exact, kinks) = trace_line(model, start, end), brute_smp(model, path, 1.0, samples=101)
    assert kinks > 5
    assert trace.certified, trace.gaps
    torch.testing.assert_close(trace.smp, exact, rtol=1e-6, atol=1e-9)
    assert {name.split("#")[0] for name in trace.layers} == {"net:relu"}
    found = attribute(model, path, torch.linspace(0, 1, 2001, dtype=torch.float64))
    # Each of few kinks reads its gain beside itself: of the order of the spacing.
    torch.testing.assert_close(found.total, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize(("net", "last", "unit"), [
    (lambda: nn.LSTM(2, 4, batch_first=True), False, "sigmoid"), (lambda: nn.LSTMCell(2, 4), True, "sigmoid"),
    (lambda: nn.GRU(2, 4, batch_first=True), False, "sigmoid"), (lambda: nn.GRUCell(2, 4), True, "sigmoid"),
    (lambda: nn.RNN(2, 4, batch_first=True), False, "tanh")], ids=["LSTM", "LSTMCell", "GRU", "GRUCell", "tanh"])
def test_smooth_recurrences_are_gaps_by_name_and_without_kinks(net, last, unit):
    model, start, end = drawn(net(), last)
    trace = trace_line(model, start, end)
    assert trace.gaps == [(0.0, 1.0, f"net: {unit} is not straight")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attribute(model, paths.line(start, end), torch.linspace(0, 1, 101, dtype=torch.float64)).total == 0
