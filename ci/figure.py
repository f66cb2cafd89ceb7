"""The README's pictures: ``.venv/bin/python ci/figure.py``, and ``ci/figure.py runs/sweep`` after its sweep.

``ci/figure.py --moving`` draws the moving picture of notebook 00 and of the site's front page.
``ci/figure.py --command`` runs the README's ``smpcore why`` and puts what it prints below it.
``ci/figure.py --plane`` runs notebook 11 with the face network's plane of creases, some minutes, and stores that.

The first takes the main figures out of the committed notebooks 00 and 10 and stores each with a palette of 128 colours,
which keeps it under 100 kB. The second draws the table of the README's sweep of notebook 02.
"""

import base64
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from page_parts import pngs_of

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
FIGURE = ROOT / "notebooks" / "figures" / "start_here.png"
CURED = ROOT / "notebooks" / "10_smoothing.ipynb", ROOT / "notebooks" / "figures" / "smoothing.png"
MOVING = ROOT / "notebooks" / "figures" / "start_here_moving.webp"
SWEEP = ROOT / "notebooks" / "figures" / "sweep.png"
PLANE = ROOT / "notebooks" / "figures" / "face_plane.png"


def main_figure(notebook: Path, tag: str = "main-figure") -> bytes:
    """The PNG that the cell tagged ``main-figure``, or another tag, of an executed notebook drew.

    Raises
    ------
    ValueError
        Where there is none.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if tag in cell["metadata"].get("tags", []):
            for png in pngs_of(cell):
                return base64.b64decode(png)
    raise ValueError(f"{notebook.name} has no figure in a cell tagged {tag}: execute it first")


def write(notebook: Path = NOTEBOOK, figure: Path = FIGURE, tag: str = "main-figure") -> Path:
    """Store the main figure of ``notebook``, or that of another tag, as ``figure``."""
    return _small(main_figure(notebook, tag), figure)


def write_plane(figure: Path = PLANE, lines: int = 60) -> Path:
    """Run notebook 11 with ``lines`` lines of each direction through the face network, and store what it draws."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "ci" / "run.py", "--here", "11", "-p", "face_lines", str(lines),
                        "--output", folder], check=True)
        return write(next(Path(folder).glob("11_*/11_*.ipynb")), figure, "face-figure")


def write_sweep(folder: Path, figure: Path = SWEEP) -> Path:
    """Draw the sweep of notebook 02 over ``length_scale``: each seed's measurement, and the prediction.

    Raises
    ------
    ValueError
        For a folder that has no such sweep.
    """
    import matplotlib.pyplot as plt

    from smpcore import plotting
    from smpcore.experiments import results

    runs = results.load(folder)
    runs = runs if runs.empty else runs[runs["notebook"] == "02_relu"]
    if runs.empty or runs["length_scale"].nunique() < 2:
        raise ValueError(f"{folder} has no sweep of notebook 02 over length_scale: the README has the command")
    with plt.rc_context():
        plotting.use_style()
        picture, axis = plt.subplots(figsize=(7, 3.6))
        seeds = list(runs.groupby("seed"))
        for place, (_, mine) in enumerate(seeds):
            beside = 1 + 0.02 * (place - (len(seeds) - 1) / 2)  # or the seeds would hide one another
            axis.errorbar(mine["length_scale"] * beside, mine["smp_measured"], mine["smp_measured_se"], fmt="o", ms=4,
                          capsize=2, lw=1, color=plotting.COLORS["measured"],
                          label=None if place else f"measured, ± 1 standard error, {len(seeds)} seeds")
        expected = runs.groupby("length_scale")["smp_predicted"].mean()
        axis.loglog(expected.index, expected, color=plotting.COLORS["predicted"], label="predicted", zorder=0)
        axis.set_xticks(expected.index, [f"{value:g}" for value in expected.index])
        axis.set_xticks([], minor=True)
        axis.set(xlabel="length scale of the input, in units of t", ylabel="SMP, in units of x/t",
                 title=f"{len(runs)} runs of notebook 02")
        axis.set_yticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axis.set_yticks([], minor=True)
        axis.legend()
        buffer = io.BytesIO()
        picture.savefig(buffer, dpi=100)
        plt.close(picture)
    return _small(buffer.getvalue(), figure)


def write_command(readme: Path = ROOT / "README.md") -> Path:
    """Run the first ``smpcore why`` that stands alone in the README, and write what it prints into the block behind."""
    text = readme.read_text(encoding="utf-8")
    before, command, middle, after = re.match(r"(.*?```\n)(smpcore why [^\n]*)(\n```\n\n```text\n).*?(```.*)", text,
                                              re.DOTALL).groups()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", *command.split(), "--report", f"{folder}/why.html"]
        said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    readme.write_text(before + command + middle + said.split("\n\nthe report: ")[0].strip() + "\n" + after,
                      encoding="utf-8")
    return readme


def write_moving(figure: Path = MOVING, frames: int = 72, samples: int = 501) -> Path:
    """Draw notebook 00 as it moves: the crop, the trail of the eye, its slope, and each layer's units that switch."""
    import math

    import matplotlib.pyplot as plt
    import torch
    from PIL import Image

    from smpcore import attribute, models, paths, plotting

    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **models.FACE_INPUT)
    face = models.face_network().double()
    times = torch.linspace(0, 2 * math.pi, samples, dtype=torch.float64)
    with torch.no_grad():
        eye = torch.cat([face(path(part)).landmarks[:, [0, 5]] for part in times.split(20)])
    slope = eye[:, 0].diff() / (times[1] - times[0])
    trail = path.to_picture(times, eye[:, None])[:, 0]
    corners = path.to_picture(times, torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64))
    shots = torch.linspace(0, samples - 1, frames + 1).long()
    inside = [attribute(face, path, times[torch.stack([a, b])], outputs=lambda answer: answer.landmarks[:, :1]).layers
              for a, b in itertools.pairwise(shots)]
    layers = [layer.name.split(":")[0] for layer in inside[0]]
    switched = torch.tensor([[layer.switches / layer.units for layer in each] for each in inside])
    brightness = switched / switched.amax(0)  # of each layer, against its own busiest moment
    colors = [plotting.COLORS["max pool" if layer.kind == "max pool" else "prelu"] for layer in inside[0]]
    left, top, right, bottom = path.box
    pictures = []
    with plt.rc_context():
        plotting.use_style()
        for shot in range(frames):
            now = shots[shot + 1]
            drawn, axes = plt.subplot_mosaic("PS;PL", figsize=(7.6, 3.6), width_ratios=(1, 1.25))
            axes["P"].imshow(path.pixels.permute(1, 2, 0), extent=(0, *path.pixels.shape[:0:-1], 0))
            axes["P"].add_patch(plt.Polygon(corners[now], fill=False, color="w", lw=2))
            axes["P"].plot(*trail[:now + 1].T, color=plotting.COLORS["measured"], lw=1)
            axes["P"].plot(*trail[now], "o", mfc="none", mec=plotting.COLORS["kink"], mew=2.5, ms=11)
            axes["P"].set(xlim=(left - 40, right + 40), ylim=(bottom + 40, top - 40), xticks=[], yticks=[])
            axes["P"].grid(False)
            axes["S"].plot(times[1:now + 1], slope[:now], color=plotting.COLORS["measured"], lw=1)
            axes["S"].set(xlim=(0, 2 * math.pi), ylim=(slope.min(), slope.max()), yticks=[], xlabel="time t")
            axes["S"].set_title("the left eye's slope", fontsize=11)
            for place, (color, strength) in enumerate(zip(colors, brightness[shot].tolist(), strict=True)):
                axes["L"].barh(place, 1, color=color, alpha=0.08 + 0.92 * strength)
            axes["L"].set(xticks=[], ylim=(len(layers) - 0.5, -0.5))
            axes["L"].set_yticks(range(len(layers)), layers, fontsize=9)
            axes["L"].set_title("units that switch, layer by layer", fontsize=11)
            axes["L"].grid(False)
            for axis in (axes["S"], axes["L"]):
                axis.xaxis.label.set_size(10)
                axis.tick_params(labelsize=9)
            buffer = io.BytesIO()
            drawn.savefig(buffer, dpi=90)
            plt.close(drawn)
            pictures.append(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    pictures[0].save(figure, save_all=True, append_images=pictures[1:], duration=110, loop=0, quality=45, method=4)
    return figure


def _small(png: bytes, figure: Path) -> Path:
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(figure, optimize=True)
    return figure


if __name__ == "__main__":
    if sys.argv[1:] == ["--command"]:
        drawn = [write_command()]
    elif sys.argv[1:] == ["--moving"]:
        drawn = [write_moving()]
    elif sys.argv[1:] == ["--plane"]:
        drawn = [write_plane()]
    else:
        drawn = [write_sweep(Path(sys.argv[1]))] if len(sys.argv) > 1 else [write(), write(*CURED)]
    for path in drawn:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
