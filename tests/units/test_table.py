"""Every unit of the table has a case, and every case agrees with a count that knows no units."""

import pytest
import torch
from brute import brute_smp
from cases import ALL, UNITS
from torch.nn import functional as F

from smpcore import attribute, paths
from smpcore.units import table as switches


def by_name(case):
    return case.name


@pytest.mark.parametrize("op", sorted(switches.TABLE))
def test_every_entry_has_a_case(op):
    assert any(case.name.split(",")[0] == op for case in UNITS), f"add a case for {op} to tests/cases.py"


@pytest.mark.parametrize("case", [case for case in UNITS if not case.jumps], ids=by_name)
def test_a_unit_agrees_with_the_count(case):
    model, start, end = case.build(1)
    path = paths.line(start, end)
    truth, _ = brute_smp(model, path, 1.0, straight=case.straight, samples=201 if case.straight else 2001)
    found = attribute(model, path, torch.linspace(0, 1, 601, dtype=torch.float64))
    op = case.name.split(",")[0]
    layer = found.layers[0]
    assert layer.name.split(":")[1].rstrip("_") == op
    # Straight pieces and at most a few kinks in one interval: what is left is switches that share one.
    torch.testing.assert_close(found.total, truth, rtol=0.01, atol=1e-9)


@pytest.mark.parametrize("case", [case for case in UNITS if case.jumps], ids=by_name)
def test_a_jump_of_value_is_counted_apart(case):
    model, start, end = case.build(1)
    path = paths.line(start, end)
    times = torch.linspace(0, 1, 601, dtype=torch.float64)
    found = attribute(model, path, times)
    assert found.total.tolist() == [0.0, 0.0]
    fine = attribute(model, path, torch.linspace(0, 1, 4001, dtype=torch.float64))
    # The model is straight but for its jumps: what no slope explains between samples is a jump.
    missing = fine.values.diff(dim=0) - (fine.slopes[1:] + fine.slopes[:-1]) / 2 / 4000
    truth = torch.where(missing.abs() > 1e-9, missing.abs(), 0.0).sum(0)
    torch.testing.assert_close(found.value_jumps, truth, rtol=0.03, atol=0.02)


UNFOLLOWED = {
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "median": lambda x: x.median(1, keepdim=True).values,
    "kthvalue": lambda x: torch.kthvalue(x, 2, 1, True).values,
    "cummax": lambda x: torch.cummax(x, 1).values,
    "gt": lambda x: torch.where(x > 0, x, 0 * x),
    "lt": lambda x: x.masked_fill(x < 0, 0.0),
    "ge": lambda x: x * (x >= 0),
    "gt ": lambda x: (x > 0).to(x) * x,
    "argmax": lambda x: x + F.one_hot(x.argmax(1), 4),
    "norm": lambda x: x.norm(p=1, dim=1, keepdim=True),
    "long": lambda x: x + x.long(),
    "remainder": lambda x: x % 1,
    "indices": lambda x: x.max(1, keepdim=True).indices + x,
}


@pytest.mark.parametrize("op", UNFOLLOWED)
def test_what_is_not_followed_is_refused_by_name(op):
    path = paths.line(torch.ones(4), -torch.ones(4))
    with pytest.raises(ValueError, match=f"{op.strip()}.* switch.*output depends on"):
        attribute(UNFOLLOWED[op], path, torch.linspace(0, 1, 11))


def test_a_mask_that_the_output_does_not_depend_on_is_no_matter():
    def model(x):
        assert (x > 0) is not None
        return torch.relu(x)

    found = attribute(model, paths.line(torch.ones(4), -torch.ones(4)), torch.linspace(0, 1, 11))
    torch.testing.assert_close(found.total, torch.full((4,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(("op", "match"), [
    (lambda x: torch.clamp(x, -x.abs(), None), "bounds that depend on the input.*maximum"),
    (lambda x: F.rrelu(x, training=True), "rrelu draws random slopes.*eval"),
    (lambda x: torch.relu(x).add(torch.maximum(x, x, out=torch.empty_like(x))), "out=…"),
])
def test_calls_that_cannot_be_followed(op, match):
    with pytest.raises((ValueError, RuntimeError), match=match):
        attribute(op, paths.line(torch.ones(4), -torch.ones(4)), torch.linspace(0, 1, 11))


def test_the_cases_have_names_of_their_own():
    assert len({case.name for case in ALL}) == len(ALL)


@pytest.mark.parametrize("function", [torch.relu, F.relu, F.relu_, torch.relu_, torch.Tensor.relu])
def test_one_name_for_an_operation(function):
    assert switches.canonical(function)[0] == "relu"
