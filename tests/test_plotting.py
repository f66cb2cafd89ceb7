"""Figures: small files that keep their colours, and scatter drawn as it is."""

import io
import math

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from smpcore import models, paths, plotting

Image = pytest.importorskip("PIL.Image")


def as_rgb(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


def test_a_small_picture_keeps_the_houses_colours_beside_a_photograph():
    # Every pixel a colour of its own: without a place kept for it, a small dot's colour goes under.
    photograph = (torch.rand(300, 400, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    picture = Image.fromarray(photograph.numpy())
    for place, color in enumerate(plotting.PALETTE):
        picture.paste(color, (20 * place, 0, 20 * place + 6, 6))
    picture.paste("white", (0, 100, 400, 300))
    full = io.BytesIO()
    picture.save(full, "png", dpi=(130, 130))
    small = plotting._with_palette(full.getvalue())
    assert len(small) < 0.5 * len(full.getvalue())
    assert Image.open(io.BytesIO(small)).size == (400, 300)
    shown = as_rgb(small)
    for place in range(len(plotting.PALETTE)):
        before, after = picture.getpixel((20 * place + 3, 3)), shown.getpixel((20 * place + 3, 3))
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 25, plotting.PALETTE[place]
    assert shown.getpixel((200, 200)) == (255, 255, 255)


def test_the_spread_is_drawn_with_the_prediction_not_with_the_measured_mean():
    values = 3 + 2 * torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    figure, (left, right) = plt.subplots(1, 2)
    plotting.draw_spread(left, right, values, 10.0, 1.5, color="C0", of="SMP (1/t)")
    assert sum(bar.get_width() * bar.get_height() for bar in left.patches) == pytest.approx(1)
    assert [line.get_xdata()[0] for line in right.lines[-3:]] == [10.0, 8.5, 11.5]
    steps, normal = right.lines[:2]
    assert list(steps.get_xdata()) == values.sort().values.tolist()
    assert steps.get_ydata()[-1] == 1
    middle = abs(normal.get_xdata() - 10.0).argmin()
    assert float(normal.get_ydata()[middle]) == pytest.approx(0.5, abs=0.02)
    assert left.get_xlabel() == right.get_xlabel() == "SMP (1/t)"
    plt.close(figure)


def test_the_style_is_one_for_all_and_legible():
    with matplotlib.rc_context():
        plotting.use_style()
        assert plt.rcParams["figure.figsize"][0] <= 9.5
        assert min(plt.rcParams[name] for name in ("axes.labelsize", "axes.titlesize")) >= 15
        assert min(plt.rcParams[name] for name in ("legend.fontsize", "xtick.labelsize", "ytick.labelsize")) >= 14
        assert plt.rcParams["legend.frameon"]


@pytest.fixture
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield matplotlib.rcParams


def test_the_palette_is_what_lines_are_drawn_in(style):
    assert [entry["color"] for entry in style["axes.prop_cycle"]] == list(plotting.PALETTE)


def test_colours_can_be_told_apart():
    assert len(set(plotting.PALETTE)) == len(plotting.PALETTE)

    def lightness(color):
        return sum(weight * level for weight, level in zip((0.2126, 0.7152, 0.0722), to_rgb(color), strict=True))

    # Dark enough to be seen on white.
    assert max(map(lightness, plotting.PALETTE)) < 0.75


def test_a_meaning_has_a_colour_of_the_palette_or_grey():
    for meaning, color in plotting.COLORS.items():
        red, green, blue = to_rgb(color)
        assert to_hex(color).upper() in plotting.PALETTE or red == green == blue, meaning


def test_a_moving_crop_is_drawn_inside_its_photograph(style):
    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **models.FACE_INPUT)
    times = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)
    points = torch.full((33, 2, 2), 0.5, dtype=torch.float64)
    figure, axis = plt.subplots()
    try:
        plotting.draw_moving_crop(axis, path, times, points)
        assert len(axis.patches) == 3  # the crop at rest and twice under way
        assert len(axis.images) == 1
        _, height, width = path.pixels.shape
        left, right = axis.get_xlim()
        bottom, top = axis.get_ylim()
        assert 0 <= left < 165 < 375 < right <= width
        assert 0 <= top < 125 < 335 < bottom <= height  # downwards, as a photograph's rows go
        # The first corner of the crop at rest is the box's.
        assert axis.patches[0].get_xy()[0].tolist() == pytest.approx([165, 125], abs=1)
        assert list(axis.get_xticks()) == []
    finally:
        plt.close(figure)


@pytest.mark.parametrize(("changes", "says"), [
    ({"measured": []}, r"measured = \[\]: it must be \(N,\) finite numbers"),
    ({"measured": torch.ones(2, 2)}, r"measured = a tensor of shape \(2, 2\): it must be \(N,\) finite numbers"),
    ({"measured": [1.0, float("nan")]}, r"measured = \[1.0, nan\]: it must be \(N,\) finite numbers"),
    ({"std": 0.0}, "std = 0.0: it must be a finite number above 0"),
    ({"mean": float("nan")}, "mean = nan: it must be a finite number"),
])
def test_a_spread_that_cannot_be_drawn_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        plotting.draw_spread(None, None, **{"measured": [1.0, 2.0], "mean": 0.0, "std": 1.0, "color": "k", "of": "x",
                                            **changes})


@pytest.mark.parametrize(("name", "bad", "says"), [
    ("path", lambda t: t, "path = <function .*: it must be one over a photograph, as paths.picture gives it"),
    ("times", [0.0], r"times = \[0.0\]: it must be a tensor \(P,\) of times"),
    ("points", torch.zeros(3, 2, 2), r"points of shape \(3, 2, 2\): they must be a tensor \(P, K, 2\)"),
])
def test_a_moving_crop_that_cannot_be_drawn_is_refused(name, bad, says):
    good = {"path": paths.picture("grace_hopper.jpg", [165, 125, 375, 335]), "times": torch.zeros(2).double(),
            "points": torch.zeros(2, 1, 2)}
    with pytest.raises((TypeError, ValueError), match=says):
        plotting.draw_moving_crop(None, **{**good, name: bad})


class _Plane:
    """Two crossings, of two layers, with jumps of two sizes."""

    layers, jumps = ["1:relu", "0:relu"], torch.tensor([[1.0], [0.01]])

    def segments(self):
        return torch.tensor([[[0.0, 0.1], [0.2, 0.3]], [[0.5, 0.5], [0.6, 0.9]]]), torch.tensor([0, 1])


def test_a_plane_has_a_colour_for_each_layer_and_wider_lines_for_larger_jumps():
    _, axis = plotting.plt.subplots()
    plotting.draw_plane(axis, _Plane())
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0:relu", "1:relu"]
    first, second = axis.collections
    assert first.get_linewidths()[0] < second.get_linewidths()[0]
    assert (first.get_colors()[0] != second.get_colors()[0]).any()
    with pytest.raises(ValueError, match=r"plane = .* it must be what smpcore.tracing.trace_plane gives"):
        plotting.draw_plane(axis, 3)
