"""One style for every figure: legible when projected, and safe for the colour-blind."""

import matplotlib.pyplot as plt
from cycler import cycler

__all__ = ["COLORS", "PALETTE", "use_style"]

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
