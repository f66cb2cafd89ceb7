"""One style for every figure: legible when projected, and safe for the colour-blind."""

import io
import math

import torch

import smpcore
from smpcore.arguments import TENSOR, TIMES, Kind, checked, whole

plt = smpcore.need("matplotlib.pyplot")
LineCollection = smpcore.need("matplotlib.collections").LineCollection

__all__ = ["COLORS", "PALETTE", "draw_moving_crop", "draw_plane", "draw_spread", "use_style"]

# M. Okabe and K. Ito, "Color Universal Design" (2008), without yellow, which cannot be seen on a projector.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

# One meaning, one colour, in every notebook.
COLORS = {
    "relu": PALETTE[0],
    "prelu": PALETTE[0],
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
        "figure.figsize": (9.0, 5.0),
        "figure.dpi": 130,
        "figure.constrained_layout.use": True,
        "font.size": 15,
        "axes.titlesize": 16,
        "axes.labelsize": 16,
        "legend.fontsize": 14,
        "legend.frameon": True,
        "legend.framealpha": 0.95,
        "legend.edgecolor": "0.8",
        "legend.fancybox": False,
        "xtick.labelsize": 14,
        "ytick.labelsize": 14,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "lines.linewidth": 2.2,
        "lines.markersize": 8,
        "axes.prop_cycle": plt.cycler(color=PALETTE),
        "svg.hashsalt": "smpcore",
    })
    _store_figures_small()


def _store_figures_small() -> None:
    """In a notebook, store figures as PNGs with a palette."""
    try:
        from IPython import get_ipython
        from IPython.core.pylabtools import print_figure
    except ModuleNotFoundError:
        return
    shell = get_ipython()
    if shell is None or "inline" not in plt.get_backend():
        return
    # The backend registers its own formatter when it is loaded, so it has to be loaded first.
    plt.switch_backend(plt.get_backend())
    shell.display_formatter.formatters["image/png"].for_type(
        plt.Figure, lambda figure: _with_palette(print_figure(figure, "png", bbox_inches="tight", base64=False)))


def _with_palette(png: bytes) -> bytes:
    """The same picture with a palette of 128 colours: a third of the bytes, and no visible difference."""
    Image = smpcore.need("PIL.Image")
    full = Image.open(io.BytesIO(png))
    dpi = full.info.get("dpi")
    full = full.convert("RGB").point(lambda level: 255 if level > 247 else level)  # so that white stays white
    # The palette is computed with a strip of PALETTE's colours below the picture. Without it, a photograph takes all
    # 128 entries, and small coloured marks get a wrong colour.
    wide, high = full.size
    secured = Image.new("RGB", (wide, high + high // 4), "white")
    secured.paste(full)
    ends = [place * wide // len(PALETTE) for place in range(len(PALETTE) + 1)]
    for color, left, right in zip(PALETTE, ends[:-1], ends[1:], strict=True):
        secured.paste(color, (left, high, right, secured.height))
    small = io.BytesIO()
    full.quantize(palette=secured.quantize(128), dither=Image.Dither.NONE).save(small, "png", optimize=True, dpi=dpi)
    return small.getvalue()


@checked(times=TIMES, points=TENSOR, path=Kind(
    object, ": it must be one over a photograph, as paths.picture gives it", lambda path: hasattr(path, "to_picture")))
def draw_moving_crop(axis, path, times, points) -> None:
    """Draw a photograph, a crop that moves over it, and what a network points at.

    Parameters
    ----------
    axis
        Of matplotlib; its title, ticks and limits are set.
    path
        A `smpcore.paths.PicturePath`.
    times
        (P,): the crop is drawn at the first (solid), and after an eighth and seven eighths of the times (dashed).
    points
        (P, K, 2): x and y of K points as fractions of the crop. Each is a ring at the first time, and a trail.

    Raises
    ------
    TypeError, ValueError
        For another path, times or points of another shape.
    """
    if points.ndim != 3 or points.shape[::2] != (len(times), 2):
        raise ValueError(f"points of shape {tuple(points.shape)}: they must be a tensor (P, K, 2), x and y of K points "
                         "at each time")
    _, height, width = path.pixels.shape
    left, top, right, bottom = path.box
    margin = 0.3 * (right - left)
    # Fewer pixels and grey levels than the photograph has, so that the notebook is a quarter as large.
    block = max(1, round((right - left + 2 * margin) / 150))
    shown = torch.nn.functional.avg_pool2d(path.pixels[None], block)[0].permute(1, 2, 0).clip(0, 1)
    axis.imshow((shown * 16).round() / 16, cmap="gray", interpolation="nearest",
                extent=(0, block * shown.shape[1], block * shown.shape[0], 0))
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=times.dtype, device=times.device)
    shots = times[[0, len(times) // 8, 7 * len(times) // 8]]
    for place, outline in enumerate(path.to_picture(shots, corners).cpu()):
        width_and_style = (2.5, "-") if place == 0 else (1.2, "--")
        axis.add_patch(plt.Polygon(outline, fill=False, color="w", lw=width_and_style[0], ls=width_and_style[1]))
    for place, trail in enumerate(path.to_picture(times, points).cpu().transpose(0, 1)):
        color = PALETTE[place % len(PALETTE)]
        axis.plot(*trail[0], "o", mfc="none", mec="w", mew=5, ms=16)
        axis.plot(*trail[0], "o", mfc="none", mec=color, mew=3, ms=16)
        axis.plot(*trail.T, color=color, lw=1.2)
    axis.set(xlim=(max(0, left - margin), min(width, right + margin)), xticks=[], yticks=[],
             ylim=(min(height, bottom + margin), max(0, top - margin)))
    axis.grid(False)


@checked(plane=Kind(object, ": it must be what smpcore.tracing.trace_plane gives",
                    lambda plane: hasattr(plane, "segments")), output=whole(0))
def draw_plane(axis, plane, *, output: int = 0, width: float = 2.0) -> None:
    """Draw the creases of one output in a plane of inputs: a colour for each layer, the wider the larger the jump.

    Parameters
    ----------
    axis
        Of matplotlib; its limits are set, and a legend names the layers.
    plane
        A `smpcore.tracing.PlaneTrace`.
    output
        Which of its outputs.
    width
        Of the largest jumps' lines, in points.
    """
    ends, chosen = (part.cpu() for part in plane.segments())
    jumps = plane.jumps[chosen, output].abs().cpu()
    # Jumps spread over decades: lines are as wide as the root of a jump, none under a tenth of the widest.
    widths = width * (jumps / jumps.quantile(0.98)).clamp(0.01, 1).sqrt() if len(jumps) else jumps
    names = list(dict.fromkeys(sorted(plane.layers)))
    place = torch.tensor([names.index(plane.layers[k]) for k in chosen.tolist()])
    for number, name in enumerate(names):
        own, color = place == number, PALETTE[number % len(PALETTE)]
        axis.add_collection(LineCollection(ends[own].numpy(), colors=color, linewidths=widths[own].numpy()))
        axis.plot([], [], color=color, lw=3, label=name)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.grid(False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


@checked(mean=Kind(object, ": it must be a finite number", math.isfinite),
         std=Kind(object, ": it must be a finite number above 0", lambda std: math.isfinite(std) and std > 0),
         measured=Kind(object, ": it must be (N,) finite numbers, one for each signal", lambda given: (
             given := torch.as_tensor(given)).ndim == 1 and len(given) > 0 and given.isfinite().all()))
def draw_spread(left, right, measured, mean: float, std: float, *, color: str, of: str) -> None:
    """Draw how single values scatter, against the mean and the standard deviation that were predicted for them.

    Parameters
    ----------
    left, right
        Two matplotlib axes: a histogram, and the share of values up to each point.
    measured
        (N,): one value for each signal.
    mean, std
        As predicted; the normal curve that has both is drawn in.
    color
        Of what was measured.
    of
        What the values are, with their unit; names the horizontal axes.

    Raises
    ------
    ValueError
        For values that are not (N,) finite numbers, a mean that is not finite, a deviation that is not positive.
    """
    ordered = torch.as_tensor(measured).detach().cpu().double().sort().values
    reach = max(3.2 * std, float((ordered - mean).abs().max()))
    grid = torch.linspace(mean - reach, mean + reach, 201, dtype=torch.float64)
    bell = torch.exp(-(((grid - mean) / std) ** 2) / 2) / std / math.sqrt(2 * math.pi)
    # About 25 values to a bin: each bar is then good to a fifth of its height.
    left.hist(ordered, bins=min(40, max(5, len(ordered) // 25)), density=True, color=color, alpha=0.5)
    left.plot(grid, bell, color=COLORS["predicted"])
    left.set(ylabel="density", title="histogram")
    right.step(ordered, torch.arange(1, len(ordered) + 1) / len(ordered), where="post", color=color, lw=3,
               label="measured")
    right.plot(grid, torch.special.ndtr((grid - mean) / std), color=COLORS["predicted"], label="predicted")
    right.set(ylabel="share of values below", title="cumulative")
    right.legend(loc="upper left")
    for axis in (left, right):
        axis.axvline(mean, color="k", ls="--", lw=1.5)
        for edge in (mean - std, mean + std):
            axis.axvline(edge, color="k", ls=":", lw=1.5)
        axis.set(xlabel=of)
