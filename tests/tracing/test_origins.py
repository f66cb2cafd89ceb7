"""A trace certifies only what it followed: what came from no call that it saw, and what hides between three points."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smpcore import attribute, paths, trace_line

START, END = torch.tensor([0.1, -1.0], dtype=torch.float64), torch.tensor([0.9, 1.0], dtype=torch.float64)
KEPT = torch.zeros(1, 2, dtype=torch.float64)


def bump(x):
    """Five thousandths of the line wide, flat on both sides, SMP 4 for each unit of its input's speed."""
    return torch.relu(x - 0.37) - 2 * torch.relu(x - 0.3705) + torch.relu(x - 0.371)


class Another(torch.Tensor):
    pass


def _through_data(x):
    buffer = torch.zeros_like(x)
    buffer.data.copy_(x)
    return buffer


def _kept(x):
    KEPT.data.copy_(x[:1])
    return KEPT.expand(len(x), -1)


#: Ways in which a tensor leaves the sight of every function, its numbers kept.
LOST = {
    "another type": lambda x: x.as_subclass(Another), "a parameter": nn.Parameter,
    "new_tensor": lambda x: x.new_tensor(x), "DLPack": torch.from_dlpack,
    "_make_subclass": lambda x: torch.Tensor._make_subclass(torch.Tensor, x),
    "a write into .data": _through_data, "a write into what is kept": _kept, "torch.tensor": lambda x: torch.tensor(x),
    "deepcopy": copy.deepcopy,
    "its storage": lambda x: torch.empty(0, dtype=x.dtype).set_(x.untyped_storage(), 0, x.shape),
    "a parameter of a part": lambda x: nn.Parameter(x[:, :1].relu()),
}


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize("name", LOST)
def test_a_tensor_of_unknown_origin_is_not_certified_and_refused_by_attribute(name):
    def model(x):
        return x + bump(LOST[name](x))

    try:
        trace = trace_line(model, START, END)
        assert not trace.certified
        assert trace.gaps[0][:2] == (0.0, 1.0)
        assert "cannot be followed" in trace.gaps[0][2]
    except ValueError as error:
        assert "no call that is followed" in str(error)  # noqa: PT017  (a gap will do as well)
    with pytest.raises(ValueError, match=r"model:.* reads a tensor that depends on the input and cannot be followed"):
        attribute(model, paths.line(START, END), torch.linspace(0, 1, 11, dtype=torch.float64))


def test_the_same_model_without_the_detour_is_certified():
    trace = trace_line(lambda x: x + bump(x), START, END)
    assert trace.certified
    assert trace.smp.tolist() == pytest.approx([4 * 0.8, 4 * 2.0])


def test_a_copy_out_of_sight_is_found_by_its_numbers_at_two_points():
    """The memory is another, so that only the values betray where they come from."""
    def model(x):
        found = torch.zeros(x.shape, dtype=x.dtype)
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            twin = nn.Parameter(x.detach() * 1.0)
        return x + bump(twin) + found

    trace = trace_line(model, START, END)
    assert not trace.certified
    assert "cannot be followed" in trace.gaps[0][2]


def test_a_view_taken_before_its_tensor_was_written_is_refused():
    def model(x):
        whole = torch.zeros_like(x)
        part = whole[:, 1:]
        whole.copy_(x)
        return part.relu()

    with pytest.raises(ValueError, match="view was taken before"):
        trace_line(model, START, END)


def test_what_a_model_keeps_between_calls_is_not_taken_for_this_stretch():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.zeros(1, 2))

        def forward(self, x):
            if len(x) != len(self.kept):
                self.kept = self.kept.new_zeros(x.shape)
            self.kept.zero_()
            self.kept.add_(x)
            return self.kept.relu() * 1.0

    trace = trace_line(Keeps(), START, END)
    assert trace.certified, trace.gaps
    assert trace.smp.tolist() == pytest.approx([0.0, 2.0])


def _close(x):
    return torch.where(torch.isclose(x, torch.full_like(x, 0.37), atol=0.003), 0.003 - (x - 0.37).abs(), 0 * x)


@pytest.mark.parametrize(("name", "unit"), [
    ("isclose", _close), ("remainder", lambda x: torch.remainder(x, 0.01)), ("fmod", lambda x: torch.fmod(x, 0.01)),
    ("argmax", lambda x: x.argmax(1, keepdim=True) + x), ("to", lambda x: x + (1000 * x).to(torch.uint8)),
    ("__mod__", lambda x: x % 0.01), ("cummax", lambda x: x.cummax(1)[0]),
])
def test_what_may_switch_twice_between_two_points_is_a_gap_by_name(name, unit):
    trace = trace_line(lambda x: x + unit(x), START, END)
    assert not trace.certified
    assert trace.gaps[0][:2] == (0.0, 1.0)
    assert ("remainder" if name == "__mod__" else name) in trace.gaps[0][2]


def test_a_comparison_that_never_changes_is_certified():
    trace = trace_line(lambda x: torch.where(x > -5, F.relu(x), 0 * x), START, END)
    assert trace.certified, trace.gaps
    assert trace.smp.tolist() == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize("at", [0.37, 0.1 + 0.8 * 1e-7], ids=["inside", "next to an end"])
def test_a_comparison_that_changes_is_a_gap_wherever_on_its_piece(at):
    trace = trace_line(lambda x: torch.where(x[:, :1] > at, 5 * x[:, :1], x[:, :1]), START, END)
    assert not trace.certified
    assert "gt changes" in trace.gaps[0][2]


ONES = torch.ones(4, 1, dtype=torch.float64)

#: Ordinary programs, and the time of their one kink.
ORDINARY = {
    "expand": lambda x: (x.relu()[:, None].expand(-1, 4, -1) * ONES).flatten(1),
    "transposed": lambda x: (x[:, None].transpose(1, 2).contiguous().relu().transpose(1, 2) * 1.0).flatten(1),
    "to another's type": lambda x: x.relu().to(ONES),
    "a constant to the input's type": lambda x: x.relu() * ONES[0].to(x),
    "a constant in the input's shape": lambda x: x.relu() * ONES[:1].expand_as(x),
    "a parameter's type": lambda x: x.relu().type_as(ONES).view_as(x),
}


#: Programs whose values do not follow from slopes alone, and layouts in which torch takes tangents less readily.
LESS_ORDINARY = {
    "PReLU behind a switch of values": lambda x: F.prelu(
        torch.where(x > -5, x, 0 * x)[:, :, None], torch.full((2,), 0.5, dtype=x.dtype)).flatten(1),
    "RReLU behind a switch of values": lambda x: F.rrelu(torch.where(x > -5, x, 0 * x), 0.5, 0.5),
    "a permuted tensor less a number": lambda x: 0.1 - F.leaky_relu(
        x[:, None].expand(-1, 3, -1).movedim(1, -1).contiguous(), 0.5).movedim(-1, 1).flatten(1),
    "a permuted tensor written into": lambda x: _written(F.leaky_relu(
        x[:, None].expand(-1, 3, -1).movedim(1, -1).contiguous(), 0.5).movedim(-1, 1) * 1.0),
}


def _written(x):
    x[:, :1] = 2 * x[:, 1:2]
    return x.flatten(1)


@pytest.mark.parametrize("name", LESS_ORDINARY)
def test_values_and_layouts_of_every_kind_are_followed(name):
    trace = trace_line(LESS_ORDINARY[name], START, END)
    assert trace.certified, trace.gaps
    assert trace.times.tolist() == pytest.approx([0.5], abs=1e-12)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_views_and_casts_are_followed(name):
    trace = trace_line(ORDINARY[name], START, END)
    assert trace.certified, trace.gaps
    assert trace.times.tolist() == pytest.approx([0.5], abs=1e-12)
    assert trace.layers == ["model:relu"]


def test_a_trace_stops_where_a_gap_covers_everything():
    """What stands behind a first LayerNorm is run a few times, however many stretches it would take."""
    calls = []

    def model(x):
        x = F.layer_norm(x, (2,))
        calls.append(len(x))
        return x.relu()

    trace = trace_line(model, START, END)
    assert trace.gaps == [(0.0, 1.0, "model: layer_norm is not straight")]
    # Twice to look at its operations, and the plain model at ends and points of comparison: never along the line.
    assert len(calls) < 12
