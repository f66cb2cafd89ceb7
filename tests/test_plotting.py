"""Figures: small files that keep their colours, and scatter drawn as it is."""

import io

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from smpcore import plotting

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
