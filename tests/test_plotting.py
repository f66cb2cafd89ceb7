"""One style for every figure."""

import math

import matplotlib as mpl
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from smpcore import models, paths, plotting


@pytest.fixture
def style():
    with mpl.rc_context():
        plotting.use_style()
        yield mpl.rcParams


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
    import matplotlib.pyplot as plt

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
