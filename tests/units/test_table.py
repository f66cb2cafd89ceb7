"""Every unit of the table has a case, and every case agrees with a count that knows no units."""

import pytest
import torch
from brute import brute_smp
from cases import ALL, UNITS, shifted_leaky
from torch.nn import functional as F

from smpcore import attribute, paths, units
from smpcore.units import table as switches
from smpcore.units.elementwise import ELEMENTWISE


def by_name(case):
    return case.name


@pytest.mark.parametrize("op", sorted(switches.TABLE))
def test_every_entry_has_a_case(op):
    assert any(case.name.split(",")[0] == op for case in UNITS), f"add a case for {op} to tests/cases.py"


@pytest.mark.parametrize("case", [case for case in UNITS if case.smooth], ids=by_name)
def test_a_smooth_unit_is_no_layer_that_switches(case):
    model, start, end = case.build(1)
    found = attribute(model, paths.line(start, end), torch.linspace(0, 1, 101, dtype=torch.float64))
    assert found.layers == []
    assert found.total.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("case", [case for case in UNITS if not case.jumps and not case.smooth], ids=by_name)
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


HINGED = [name for name, entry in ELEMENTWISE.items() if name not in ("prelu", "threshold", "heaviside", "round")]


@pytest.mark.parametrize("name", HINGED)
def test_hinges_are_where_the_output_bends(name):
    settings = {"clamp": (-0.5, 0.5), "clamp_min": (-0.5,), "clamp_max": (0.5,), "elu": (0.5,)}.get(name, ())
    x = torch.linspace(-8, 8, 4000, dtype=torch.float64)
    seen = units.describe(name, (x, *settings), {}, smooth=True)
    if isinstance(seen, units.Steps) or seen.jumps:
        assert units.describe(name, (x, *settings), {}) is not None
        return
    inside = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(seen.output(inside).sum(), inside)
    torch.testing.assert_close(seen.derivative(x), true)
    assert (units.describe(name, (x, *settings), {}) is None) == (not seen.hinges)
    for at, below, above, _ in seen.hinges:
        sides = torch.tensor([at - 1e-9, at + 1e-9], dtype=torch.float64)
        torch.testing.assert_close(seen.derivative(sides), torch.tensor([below, above], dtype=torch.float64),
                                   rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "sum", "scaled_", "softmax"])
def test_a_unit_of_ones_own_takes_no_name_of_torchs(name):
    def describes(x):
        return units.Hinges(name, x, (), torch.tanh)

    describes.__name__ = name
    with pytest.raises(ValueError, match=f"{name} is a name of torch's, or has underscores"):
        units.entry(describes)
    assert units.TABLE.get(name) is not describes


def test_a_unit_of_ones_own_is_a_function_and_a_module():
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(shifted_leaky(x), torch.where(x > -1, x, 0.2 * x - 0.8))
    torch.testing.assert_close(units.Unit(shifted_leaky, below=0.5)(x), torch.where(x > -1, x, 0.5 * x - 0.5))


# settings, sides, sides behind
@pytest.mark.parametrize(("settings", "sides", "outer"), [
    ({"kernel_size": 3, "stride": 2, "padding": 1}, (6, 6), (3, 3)),
    ({"kernel_size": 2, "ceil_mode": True}, (5, 7), (3, 4)),
    ({"kernel_size": (2, 3), "dilation": 2}, (6, 7), (2, 1)), ({"kernel_size": 3, "stride": []}, (9,), (3,)),
    ({"kernel_size": 2, "stride": 1}, (3, 3, 4), (2, 2, 3)),
])
def test_windows_are_torchs(settings, sides, outer):
    table, found = units.windows(sides, **settings)
    assert found == outer
    x = torch.randn(1, 1, *sides, generator=torch.Generator().manual_seed(0))
    inside = x.flatten()[table.clamp(min=0)].masked_fill(table < 0, -torch.inf).amax(1)
    torch.testing.assert_close(inside, getattr(F, f"max_pool{len(sides)}d")(x, **settings).flatten())


@pytest.mark.parametrize("function", [torch.relu, F.relu, F.relu_, torch.relu_, torch.Tensor.relu])
def test_one_name_for_an_operation(function):
    assert switches.canonical(function)[0] == "relu"


def test_a_derivative_has_the_digits_of_its_input():
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert switches.describe("leaky_relu", (x, 0.01), {}).derivative(x).tolist() == [0.01, 1.0]
