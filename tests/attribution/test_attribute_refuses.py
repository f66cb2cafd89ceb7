"""What attribution refuses, or warns of, a sentence each."""

import math

import pytest
import torch
from custom import Backward, Steep
from torch import Tensor, nn

from smpcore import attribute, paths

LINE = paths.line(torch.ones(6, dtype=torch.float64), -torch.arange(6, dtype=torch.float64))
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.relu(x) * self.calls


class Late(Counter):
    """Changes only after the first calls."""

    def forward(self, x):
        self.calls += 1
        return torch.relu(x) * max(self.calls, 3)


def _linear(outputs=1):
    return nn.Linear(6, outputs)


def _hooked():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    model[1].register_full_backward_hook(lambda *_: None)
    return model


def _steep(x):
    return Steep.apply(torch.relu(x))


def _nan_later(x):
    return torch.sqrt(x[:, :1] - 0.5)


BAD = {
    "not a tensor of times": (_linear, LINE, [0, 1], {}, TypeError, "times is a torch tensor"),
    "one time": (_linear, LINE, TIMES[:1], {}, ValueError, "at least two times"),
    "not finite": (_linear, LINE, torch.tensor([0, math.nan, 1]), {}, ValueError, r"times\[1\] is not a finite"),
    "falling": (_linear, LINE, torch.tensor([0.0, 0.5, 0.5]), {}, ValueError, r"must increase.*times\[2\]"),
    "chunk": (_linear, LINE, TIMES, {"chunk": 1}, ValueError, "chunk = 1.*at least 2"),
    "dtype": (_linear, LINE, TIMES, {"dtype": torch.long}, TypeError, "floating torch type"),
    "not a model": (lambda: 3, LINE, TIMES, {}, TypeError, "torch.nn.Module or a function"),
    "batch norm": (lambda: nn.Sequential(_linear(), nn.BatchNorm1d(1)), LINE, TIMES, {}, ValueError,
                   "1 .BatchNorm1d. is in training mode.*eval"),
    "dropout": (lambda: nn.Dropout(), LINE, TIMES, {}, ValueError, "training mode.*eval"),
    "functional dropout": (lambda: lambda x: nn.functional.dropout(x), LINE, TIMES, {}, ValueError, "random.*eval"),
    "functional batch norm": (lambda: lambda x: nn.functional.batch_norm(x, None, None, training=True), LINE, TIMES,
                              {}, ValueError, "by the batch.*eval"),
    "path without tangent": (_linear, lambda t: torch.ones(len(t), 6), TIMES, {}, ValueError, "carries no tangent"),
    "path of the wrong length": (_linear, lambda t: LINE(t)[:-1], TIMES, {}, ValueError, "one input for each time"),
    "path of numpy": (_linear, lambda t: [1.0], TIMES, {}, TypeError, "must return a torch tensor"),
    "many outputs": (lambda: _linear(65), LINE, TIMES, {}, ValueError, "65 outputs.*choose at most 64"),
    "an index too far": (_linear, LINE, TIMES, {"outputs": [1]}, ValueError, "indices go from 0 to 0"),
    "no outputs": (_linear, LINE, TIMES, {"outputs": []}, ValueError, "names 0 outputs"),
    "a dictionary": (lambda: lambda x: {"y": x}, LINE, TIMES, {}, TypeError, "returns a dict.*outputs=lambda"),
    "a choice of no tensor": (_linear, LINE, TIMES, {"outputs": lambda z: 1}, TypeError, "returned a int"),
    "whole numbers": (lambda: lambda x: torch.ones(len(x), 1).long(), LINE, TIMES, {}, TypeError, "floating tensor"),
    "one row for all": (lambda: lambda x: x.sum(0), LINE, TIMES, {}, ValueError, "one row for each"),
    "a counter": (Counter, LINE, TIMES, {}, ValueError, "changes between calls"),
    "a counter later": (Late, LINE, TIMES, {"chunk": 20}, ValueError, "changes between calls"),
    "random numbers": (lambda: lambda x: x + torch.rand_like(x), LINE, TIMES, {}, ValueError, "changes between calls"),
    "another size of batch": (lambda: lambda x: torch.relu(x) * len(x), LINE, TIMES, {}, ValueError,
                              "place in the batch or on its size"),
    "NaN in a path": (_linear, lambda t: torch.log(t - 0.2)[:, None].expand(-1, 6), TIMES, {}, ValueError,
                      "the path's input is NaN at t = 0.15"),
    "NaN before a layer": (lambda: lambda x: torch.relu(torch.log(x)), LINE, TIMES, {}, ValueError,
                           "input of model:relu is NaN at t = 0.15 or 0.38"),
    "inputs of another shape": (lambda: nn.Linear(5, 1), LINE, TIMES, {}, ValueError,
                                r"does not run on inputs of shape \(2, 6\).*the path gives"),
    "tensors of a type of its own": (lambda: lambda x: x @ torch.zeros(6, 2), LINE, TIMES, {}, ValueError,
                                     "does not run in torch.float64.*new_zeros.*dtype=torch.float32"),
    "samples mixed": (lambda: lambda x: x - x.max(), LINE, TIMES, {}, ValueError, "mixes the samples"),
    "NaN": (lambda: _nan_later, LINE, TIMES, {}, ValueError, "not finite at sample"),
    "infinitely steep": (lambda: lambda x: torch.sqrt(torch.relu(x)), LINE, TIMES, {}, ValueError,
                         "slope is not finite at sample .*square root"),
    "an infinite gain": (lambda: _steep, LINE, TIMES, {}, ValueError,
                         "gain from model:relu to the output is not finite"),
    "no forward AD": (lambda: lambda x: nn.functional.grid_sample(
        x.reshape(-1, 1, 2, 3), torch.zeros(len(x), 2, 3, 2).to(x), align_corners=False).flatten(1), LINE, TIMES, {},
        ValueError, "grid_sampl.* no forward-mode derivative.*weighted sum"),
    "TorchScript": (lambda: torch.jit.trace(nn.ReLU(), torch.ones(1, 6)), LINE, TIMES, {}, ValueError, "TorchScript"),
    "runs on some inputs": (lambda: _sometimes, LINE, TIMES, {"chunk": 7}, ValueError, "ran on some inputs"),
    "no numbers": (lambda: lambda x: x[:, :0], LINE, TIMES, {}, ValueError, "holds no numbers"),
    "half the digits": (_linear, LINE, TIMES, {"dtype": torch.float16}, TypeError, "too few digits for slopes"),
    "times without numbers": (_linear, LINE, TIMES.to("meta"), {}, TypeError, "times is sparse, or without numbers"),
    "an output as a tensor": (_linear, LINE, TIMES, {"outputs": torch.tensor(0)}, TypeError, "give whole numbers"),
    "half an output": (_linear, LINE, TIMES, {"outputs": 1.5}, TypeError, "outputs = 1.5: give whole numbers"),
    "on the meta device": (lambda: nn.Linear(6, 1, device="meta"), LINE, TIMES, {}, ValueError,
                           "weight is on the meta device"),
    "quantised": (lambda: nn.Sequential(torch.ao.nn.quantized.ReLU6()), LINE, TIMES, {}, ValueError,
                  "module 0 is quantised"),
    "a custom function without a derivative": (lambda: lambda x: Backward.apply(torch.relu(x)), LINE, TIMES, {},
                                               ValueError, "model runs a custom autograd function without.*jvp"),
    "a backward hook": (lambda: _hooked(), LINE, TIMES, {}, ValueError, "1 runs a custom.*remove the hooks"),
    "no path": (_linear, None, TIMES, {}, TypeError, "path is a function of times"),
    "a path of numbers": (lambda: torch.relu, lambda t: t, TIMES, {}, ValueError, r"shape \(2,\).*\(P, 1\)"),
    "two inputs": (lambda: lambda x, y: x + y, LINE, TIMES, {}, ValueError,
                   "takes 2 inputs .x, y.: a wrapper with one tensor"),
    "an empty assertion": (lambda: _asserts, LINE, TIMES, {}, ValueError, r"does not run on inputs.*AssertionError"),
    "a parameter made of its input": (lambda: lambda x: torch.relu(nn.Parameter(x)), LINE, TIMES, {}, ValueError,
                                      "model:relu reads a tensor that depends on the input and cannot be followed"),
    "new_tensor": (lambda: lambda x: x + torch.relu(x.new_tensor(x)), LINE, TIMES, {}, ValueError,
                   "cannot be followed"),
    "_make_subclass": (lambda: lambda x: x + torch.relu(Tensor._make_subclass(Tensor, x)), LINE, TIMES, {},
                       ValueError, "cannot be followed"),
    "through numpy": (lambda: lambda x: x + torch.relu(torch.from_numpy(x.detach().numpy())), LINE, TIMES, {},
                      ValueError, "cannot be followed"),
    "another class": (lambda: lambda x: x + torch.relu(x.as_subclass(Other)), LINE, TIMES, {}, ValueError,
                      "another tensor type"),
    "data replaced": (lambda: _replaces, LINE, TIMES, {}, ValueError, "data or class was replaced"),
    "dlpack": (lambda: lambda x: x + torch.relu(torch.from_dlpack(x)), LINE, TIMES, {}, ValueError,
               "DLPack"),
    "a copy into data": (lambda: _copies, LINE, TIMES, {}, ValueError, "a write into .data"),
    "a leaf written into": (lambda: _leaf, LINE, TIMES, {}, ValueError, "model:copy runs by itself and fails where"),
    "no copy": (lambda: _uncopied(), LINE, TIMES, {}, ValueError, "cannot be copied"),
}


class Other(Tensor):
    """A class of tensors that torch does not know."""


def _asserts(x):
    raise AssertionError


def _replaces(x):
    x = x * 1
    x.data = torch.relu(x)
    return x


def _copies(x):
    held = torch.empty_like(x)
    held.data.copy_(x)
    return torch.relu(held)


def _leaf(x):
    leaf = torch.zeros_like(x, requires_grad=True)
    leaf.copy_(x)
    return torch.relu(leaf)


def _sometimes(x):
    return torch.relu(x) if len(x) in (2, 3) else torch.abs(x)


def _uncopied():
    model = _linear()
    model.kept = (x for x in ())
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*custom autograd function",
                            "ignore:To copy construct", "ignore:.*reads a number")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(name):
    make, path, times, options, kind, match = BAD[name]
    with pytest.raises(kind, match=match):
        attribute(make(), path, times, **options)


def test_a_number_read_out_of_a_tensor_is_warned_of():
    def model(x):
        return x if bool((x > -99).all()) else 2 * x

    with pytest.warns(UserWarning, match="reads a number out of a tensor"):
        found = attribute(model, LINE, TIMES)
    assert float(found.total.sum()) == 0


def _puts(x):
    return torch.zeros_like(x).put_(torch.arange(x.numel()), torch.relu(x))


@pytest.mark.parametrize("model", [
    _puts, lambda x: torch.relu(x.detach().clone()), lambda x: torch.relu(x).to(x.new_zeros(1)),
    lambda x: torch.relu(x) * torch.ones(6, dtype=torch.long).to(x),
    lambda x: torch.relu(x) * torch.ones(6, dtype=torch.long).type_as(x)],
    ids=["put_", "a detached copy", "to", "whole numbers, to", "whole numbers, type_as"])
def test_what_is_ordinary_is_followed(model):
    torch.testing.assert_close(attribute(model, LINE, TIMES).total, attribute(torch.relu, LINE, TIMES).total)


def _written(views):
    def model(x):
        held = x * 1
        views(held)[0].relu_()
        return held
    return model


@pytest.mark.parametrize("views", [
    lambda x: x.split(2, 1), lambda x: x.split(2, dim=-1), lambda x: torch.chunk(x, 3, dim=1),
    lambda x: x.tensor_split(3, 1), lambda x: x.split_with_sizes([2, 4], 1)],
    ids=["split", "split, dim named", "chunk", "tensor_split", "split_with_sizes"])
def test_what_is_written_into_views_made_together_is_followed(views):
    """Autograd alone refuses to write into them."""
    found = attribute(_written(views), LINE, TIMES).total
    torch.testing.assert_close(found[:2], attribute(torch.relu, LINE, TIMES).total[:2])
    assert not found[2:].any()


def test_whole_numbers_in_the_form_of_what_moves_are_no_mask():
    ones = torch.ones(6, dtype=torch.long)
    found = attribute(lambda x: torch.relu(x) * ones.expand_as(x), LINE, TIMES)
    torch.testing.assert_close(found.total, attribute(torch.relu, LINE, TIMES).total)
