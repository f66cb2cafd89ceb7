"""Total variation from lines, and planes from stacks of them: against closed forms and against cutting polygons."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smpcore import models, tracing
from smpcore.experiments.plane_regions import plane_regions

pytestmark = pytest.mark.numeric

ONE = {"dtype": torch.float64}
ORIGIN = torch.zeros(2, **ONE)
P, Q = torch.tensor([2.0, 0.0], **ONE), torch.tensor([0.0, 2.0], **ONE)


def with_biases(width=12, depth=2, outputs=1, seed=1):
    net, generator = models.mlp(2, outputs, width=width, depth=depth, seed=seed), torch.Generator().manual_seed(seed)
    for layer in net[:-1]:
        if isinstance(layer, nn.Linear):
            layer.bias.data = 0.3 * torch.randn(width, **ONE, generator=generator)
    return net


def one_layer(size, units=30):
    generator = torch.Generator().manual_seed(size)
    net = nn.Sequential(nn.Linear(size, units), nn.ReLU(), nn.Linear(units, 1)).double()
    for parameter, scale in zip(net.parameters(), (1.0, 0.5, 1.0, 1.0), strict=True):
        parameter.data = scale * torch.randn(parameter.shape, **ONE, generator=generator)
    return net


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_one_layer_on_a_ball_is_its_closed_form(size):
    """Each unit's crease is a ball of one dimension less, on which the gradient jumps by |v| ‖w‖."""
    net, radius = one_layer(size), 1.5
    weight, bias, out = net[0].weight.data, net[0].bias.data, net[2].weight.data[0]
    away = (bias / weight.norm(dim=1)).abs()
    disk = math.pi ** ((size - 1) / 2) / math.gamma((size + 1) / 2)
    crease = torch.where(away < radius, disk * (radius**2 - away**2).clamp_min(0) ** ((size - 1) / 2), 0.0)
    exact = float((out.abs() * weight.norm(dim=1) * crease).sum())
    ball = tracing.Ball(torch.zeros(size, **ONE), radius)
    found = tracing.total_variation(net, ball, lines=400, seed=3)
    assert abs(found.value - exact) < 4 * found.se + 1e-9
    assert found.se < 0.06 * exact
    assert found.layers == pytest.approx({"1:relu": found.value})
    dense = tracing.total_variation(net, ball, lines=400, seed=3, per_volume=True)
    volume = math.pi ** (size / 2) / math.gamma(size / 2 + 1) * radius**size
    assert dense.value * volume == pytest.approx(found.value)


def test_a_deep_network_on_a_box_is_what_cutting_polygons_gives():
    net = with_biases(width=16, depth=3)
    exact = plane_regions(net, ORIGIN - 1, P, Q).total_variation
    found = tracing.total_variation(net, tracing.Box(ORIGIN - 1, ORIGIN + 1), lines=600)
    assert abs(found.value - exact) < 4 * found.se
    assert found.se < 0.04 * exact
    assert sorted(found.layers) == ["1:relu", "3:relu", "5:relu"]
    assert sum(found.layers.values()) == pytest.approx(found.value)


def test_a_long_box_of_three_dimensions_by_its_own_closed_form():
    # |x − 0.2| + |y| on 1 × 2 × 3: two rectangles, jumps of 2.
    low, high = torch.zeros(3, **ONE), torch.tensor([1.0, 2.0, 3.0], **ONE)
    found = tracing.total_variation(lambda x: (x[:, :1] - 0.2).abs() + (x[:, 1:2] - 1.7).abs(),
                                    tracing.Box(low, high), lines=1500)
    assert abs(found.value - 2 * (2 * 3 + 1 * 3)) < 4 * found.se
    assert found.se < 0.5


def test_many_dimensions_ask_for_the_figure_per_volume():
    ball = tracing.Ball(torch.zeros(1, 28, 28), 0.5)
    net = models.mlp((1, 28, 28), width=8, depth=1)
    with pytest.raises(ValueError, match="out of a floating number's range: ask for per_volume"):
        tracing.total_variation(net, ball, lines=2)
    assert tracing.total_variation(net, ball, lines=40, per_volume=True).value > 0


REFUSED = [
    (lambda: tracing.Ball([0.0], 1.0), TypeError, "center ="),
    (lambda: tracing.Ball(ORIGIN, -1.0), ValueError, "radius"),
    (lambda: tracing.Box(ORIGIN, ORIGIN), ValueError, "low below high"),
    (lambda: tracing.Box(ORIGIN, torch.ones(3)), ValueError, "of one shape"),
    (lambda: tracing.Box(ORIGIN, 1.0), TypeError, "high = 1.0"),
    (lambda: tracing.total_variation(F.relu, 3), TypeError, "region = 3: it must be a tracing.Ball"),
    (lambda: tracing.total_variation(F.relu, tracing.Ball(ORIGIN, 1.0), lines=1), ValueError, "lines = 1"),
    (lambda: tracing.total_variation(F.gelu, tracing.Ball(ORIGIN, 1.0)), ValueError, "line 0 has kinks"),
    (lambda: tracing.trace_plane(F.relu, ORIGIN, P, Q, lines=0), ValueError, "lines = 0"),
    (lambda: tracing.trace_plane(F.relu, ORIGIN, P, torch.ones(3)), ValueError, "one shape"),
    (lambda: plane_regions(nn.Sequential(nn.Tanh()), ORIGIN, P, Q), ValueError, "nn.Linear and nn.ReLU"),
    (lambda: plane_regions(nn.ReLU(), ORIGIN, P, Q), TypeError, "nn.Linear and nn.ReLU"),
]


@pytest.mark.parametrize(("ask", "error", "words"), REFUSED, ids=[str(k) + row[2] for k, row in enumerate(REFUSED)])
def test_bad_regions_and_planes_are_refused_in_a_sentence(ask, error, words):
    with pytest.raises(error, match=words):
        ask()


def test_lines_of_a_plane_cross_every_crease_that_polygons_have_and_lean_as_they_do():
    net, lines = with_biases(outputs=2), 7
    plane = tracing.trace_plane(net, ORIGIN - 1, P, Q, lines=lines)
    regions = plane_regions(net, ORIGIN - 1, P, Q)
    assert plane.certified
    assert not plane.gaps
    (one, two), jumps = regions.edges.unbind(1), regions.jumps
    for way in (0, 1):
        for offset in ((torch.arange(lines) + 0.5) / lines).tolist():
            # Each edge is there from either side, with opposite jumps: take those seen in one direction.
            crossed = ((one[:, 1 - way] < offset) & (two[:, 1 - way] > offset)).nonzero()[:, 0]
            share = (offset - one[crossed, 1 - way]) / (two - one)[crossed, 1 - way]
            place, order = (one[crossed, way] + share * (two - one)[crossed, way]).sort()
            mine = (plane.ways == way) & ((plane.points[:, 1 - way] - offset).abs() < 1e-12)
            crossed = crossed[order]
            seen = jumps[crossed, way].abs() > 1e-9
            torch.testing.assert_close(plane.points[mine, way], place[seen], rtol=0, atol=1e-9)
            torch.testing.assert_close(plane.jumps[mine, 0].abs(), jumps[crossed, way].abs()[seen], rtol=0, atol=1e-8)
            lean = ((two - one)[crossed, way] / (two - one)[crossed, 1 - way])[seen]
            known = ~plane.leans[mine].isnan()
            assert float(known.double().mean()) > 0.9
            torch.testing.assert_close(plane.leans[mine][known], lean[known], rtol=1e-5, atol=1e-5)
    ends, chosen = plane.segments()
    assert ends.shape == (len(chosen), 2, 2)
    torch.testing.assert_close(ends.mean(1), plane.points[chosen])
    assert float(ends.diff(dim=1).abs().max()) == pytest.approx(1 / lines)


def test_a_plane_that_is_not_certified_says_where():
    plane = tracing.trace_plane(lambda x: x * (x > 0) + F.relu(x[:, :1] - 0.5), ORIGIN - 1, P, Q, lines=2)
    assert not plane.certified
    assert all("gt" in gap[4] and gap[2] < 0.5 < gap[3] for gap in plane.gaps)
    flat = tracing.trace_plane(lambda x: x, ORIGIN, P, Q, lines=2)
    assert flat.points.shape == (0, 2)


def test_at_initialisation_a_plane_has_half_as_many_regions_as_the_square_of_its_units():
    """B. Hanin, D. Rolnick, arXiv:1906.00904: N²/2 in the whole plane, whatever the depth; here in a wide square."""
    counts = []
    for depth, width in ((1, 24), (2, 12), (3, 8)):
        mean = sum(len(plane_regions(with_biases(width, depth, seed=seed), ORIGIN - 20, 20 * P, 20 * Q).polygons)
                   for seed in range(8)) / 8
        counts.append(mean / (24**2 / 2))
    # Lines through a plane cut it into 1 + N + N(N − 1)/2; deeper, units that are off in parts lose some.
    assert counts[0] == pytest.approx((1 + 24 + 24 * 23 / 2) / (24**2 / 2), rel=0.05)
    assert all(0.6 < count < 1.2 for count in counts)
