"""Calls told apart: names, arguments, what is written; and one table for all that is said of what is not followed."""

import inspect
import re
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import smpcore
from smpcore import attribute, paths, trace_line
from smpcore.inspection import CallNames, Interpreter, Scope, call_site, refusals, tensors_in, watched
from smpcore.inspection.refusals import SENTENCES, refusal, sentence

SOURCE = "".join(path.read_text(encoding="utf-8") for path in Path(smpcore.__file__).parent.rglob("*.py"))


class Sees(Interpreter):
    """Keeps every call, and opens what can be opened."""

    def __init__(self, model):
        super().__init__(Scope(model))
        self.seen = []

    def call(self, call):
        self.seen.append(call)
        return self.opened(call)


def test_an_interpreter_without_an_answer_says_so():
    with pytest.raises(NotImplementedError), Interpreter(Scope(torch.relu)):
        torch.relu(torch.ones(1))


def test_a_call_knows_its_operation_its_module_and_what_it_writes():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)).requires_grad_(False)
    sees = Sees(model)
    with sees.scope(), sees:
        y = model(torch.ones(1, 2)).T
        y.clamp_(min=0)
    found = {call.place: call for call in sees.seen}
    assert {"0:linear", "1:relu", "model:__get__", "model:clamp"} <= found.keys()
    assert found["model:__get__"].attribute == "T"
    assert [found[place].overwrites for place in ("0:linear", "model:clamp")] == [False, True]
    assert next(call for call in sees.seen if call.op == "relu").in_place
    assert [part.shape for part in found["0:linear"].tensors] == [(1, 2), (2, 2), (2,)]


def test_calls_of_one_operation_in_one_module_are_numbered():
    names = CallNames()
    assert [names.new("a.b", "relu"), names.new("a.b", "relu"), names.new("a", "relu")] \
        == ["a.b:relu", "a.b:relu#2", "a:relu"]
    assert call_site("a.b:relu#2") == "a.b:relu"


def test_an_answer_takes_the_place_of_a_unit_and_is_written_where_it_writes():
    def doubled(call):
        return call.answered_by(lambda *inputs: 2 * inputs[0])

    def model(x):
        held = x * 1
        F.relu(held, inplace=True)
        return held + F.max_pool1d(x, 1)

    x = torch.tensor([[1.0, -1.0]])
    with watched(model, doubled):
        found = model(x)
    assert found.tolist() == [[4.0, -4.0]]


@pytest.mark.parametrize("call", [
    lambda x: F.dropout(x, 0.5, training=False), lambda x: torch.dropout(x, 0.5, False), lambda x: F.dropout(x, 0.0),
    lambda x: torch.dropout(x, p=0.5, train=False)])
def test_dropout_that_is_off_is_followed(call):
    start, end = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, -1.0])
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    found = attribute(lambda x: call(torch.relu(x)), paths.line(start.double(), end.double()), times)
    assert found.total.tolist() == pytest.approx([2.0, 3.0])
    trace = trace_line(lambda x: call(torch.relu(x)), start, end)
    assert trace.certified
    assert trace.smp.tolist() == pytest.approx([2.0, 3.0])


def test_tensors_are_found_in_lists_and_dictionaries():
    a, b, c = torch.ones(3).unbind()
    assert [id(part) for part in tensors_in(([a, 1], {"b": (b,), "c": c}))] == [id(a), id(b), id(c)]


@pytest.mark.parametrize("kind", SENTENCES)
def test_every_sentence_is_said_somewhere_and_has_what_it_is_filled_with(kind):
    table = inspect.getsource(refusals)
    assert f'"{kind}"' in SOURCE.replace(table, ""), f"nothing says {kind}"
    assert not SENTENCES[kind].endswith((".", "\n"))
    fields = [field.split("[")[0] for _, field, *_ in string.Formatter().parse(SENTENCES[kind]) if field]
    words = {field: (0.0, 1.0) if f"{{{field}[" in SENTENCES[kind] else 1 for field in fields}
    assert str(refusal(kind, **words)) == sentence(kind, **words)


def test_every_kind_that_is_said_stands_in_the_table():
    said = re.findall(r'\b(?:sentence|refusal)\("(.*?)"', SOURCE)
    assert len(said) > 20
    assert set(said) <= SENTENCES.keys()


def _written(operation):
    """A ReLU that is written into a copy of its input, whatever the call gives."""
    def model(x):
        z = x * 1
        operation(z)
        return z

    return model


@pytest.mark.parametrize(("model", "jump"), [
    (_written(lambda z: F.relu(z, inplace=1)), 1.0),
    (_written(lambda z: F.relu(z, np.bool_(True))), 1.0),
    (_written(lambda z: F.leaky_relu(z, 0.3, 1)), 0.7),
    (_written(lambda z: torch.clamp_(min=torch.zeros_like(z), input=z)), 1.0),
    (_written(lambda z: torch.threshold_(threshold=0.0, value=0.0, input=z)), 1.0),
    (lambda x: x.view(x.dtype).relu(), 1.0),
    (lambda x: x.view(dtype=torch.float64).relu(), 1.0),
    (lambda x: torch.ops.aten.batch_norm(x, None, None, x.new_zeros(1), x.new_ones(1), False, 0.1, 0.0, False).relu(),
     1.0),
], ids=["inplace=1", "numpy's True", "by position", "tensor bound first", "all by keyword", "view", "view by keyword",
        "aten's order"])
def test_however_a_call_is_written_its_kinks_are_found(model, jump):
    start, end = torch.tensor([-0.77], dtype=torch.float64), torch.tensor([1.23], dtype=torch.float64)
    trace = trace_line(model, start, end)
    assert trace.certified
    assert float(trace.smp[0]) == pytest.approx(2 * jump, rel=1e-12)
    if "batch_norm" not in inspect.getsource(model):  # torch has no tangent there, and attribution says so
        found = attribute(model, paths.line(start, end), torch.linspace(0, 1, 101, dtype=torch.float64))
        assert float(found.total[0]) == pytest.approx(2 * jump, rel=1e-12)
