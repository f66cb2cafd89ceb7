"""One style for every figure: legible when projected, and safe for the colour-blind."""

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from matplotlib.patches import Polygon

__all__ = ["COLORS", "PALETTE", "draw_moving_crop", "use_style"]

# M. Okabe and K. Ito, "Color Universal Design" (2008), yellow left out: it vanishes on a projector.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

# One meaning, one colour, in every notebook.
COLORS = {
    "relu": PALETTE[0],
    "max pool": PALETTE[1],
    "average pool": PALETTE[2],
    "convolution": PALETTE[3],
    "smooth": PALETTE[2],
    "input": "#7F7F7F",
    "predicted": "#000000",
    "measured": PALETTE[0],
    "exact": "#000000",
    "sampled": PALETTE[4],
    "attributed": PALETTE[0],
    "kink": PALETTE[1],
}


def use_style() -> None:
    """Set matplotlib's defaults for the notebooks; call once, before the first figure."""
    plt.rcParams.update({
        "figure.figsize": (9.0, 4.5),
        "figure.dpi": 80,
        "figure.constrained_layout.use": True,
        "font.size": 13,
        "axes.titlesize": 14,
        "axes.labelsize": 13,
        "legend.fontsize": 11.5,
        "legend.frameon": False,
        "xtick.labelsize": 12,
        "ytick.labelsize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "lines.linewidth": 2.0,
        "lines.markersize": 7,
        "axes.prop_cycle": cycler(color=PALETTE),
        "svg.hashsalt": "smpcore",
    })


def draw_moving_crop(axis, path, times, points) -> None:
    """Draw a photograph, a crop that moves over it, and what a network points at.

    Parameters
    ----------
    axis
        Of matplotlib; its title, ticks and limits are set.
    path
        A `smpcore.paths.PicturePath`.
    times
        (P,): the crop is drawn at the first of them (solid), and an eighth and three eighths on (dashed).
    points
        (P, K, 2): x and y of K points as fractions of the crop. Each is a dot at the first time and a trail.
    """
    _, height, width = path.pixels.shape
    left, top, right, bottom = path.box
    margin = 0.3 * (right - left)
    # Fewer pixels and levels than the photograph has: a quarter of the notebook's size, and nobody minds.
    block = max(1, round((right - left + 2 * margin) / 150))
    shown = torch.nn.functional.avg_pool2d(path.pixels[None], block)[0].permute(1, 2, 0).clip(0, 1)
    axis.imshow((shown * 16).round() / 16, cmap="gray", interpolation="nearest",
                extent=(0, block * shown.shape[1], block * shown.shape[0], 0))
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=times.dtype, device=times.device)
    shots = times[[0, len(times) // 8, 3 * len(times) // 8]]
    for place, outline in enumerate(path.to_picture(shots, corners).cpu()):
        width_and_style = (2.5, "-") if place == 0 else (1.2, "--")
        axis.add_patch(Polygon(outline, fill=False, color="w", lw=width_and_style[0], ls=width_and_style[1]))
    for place, trail in enumerate(path.to_picture(times, points).cpu().transpose(0, 1)):
        color = PALETTE[place % len(PALETTE)]
        axis.plot(*trail.T, color=color, lw=1.2)
        axis.plot(*trail[0], "o", color=color, mec="w", ms=8)
    axis.set(xlim=(max(0, left - margin), min(width, right + margin)), xticks=[], yticks=[],
             ylim=(min(height, bottom + margin), max(0, top - margin)))
    axis.grid(False)
