"""The README's pictures: ``.venv/bin/python ci/figure.py``, and ``ci/figure.py runs/sweep`` after its sweep.

``ci/figure.py --command`` runs the README's ``smpcore why`` and puts what it prints below it. The first takes the main
figures out of the committed notebooks 00 and 10 and stores each with a palette of 128 colours,
which keeps it under 100 kB. The second draws the table of the README's sweep of notebook 02.
"""

import base64
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
FIGURE = ROOT / "notebooks" / "figures" / "start_here.png"
CURED = ROOT / "notebooks" / "10_smoothing.ipynb", ROOT / "notebooks" / "figures" / "smoothing.png"
SWEEP = ROOT / "notebooks" / "figures" / "sweep.png"


def main_figure(notebook: Path) -> bytes:
    """The PNG that the cell tagged ``main-figure`` of an executed notebook drew.

    Raises
    ------
    ValueError
        Where there is none.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "main-figure" in cell["metadata"].get("tags", []):
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise ValueError(f"{notebook.name} has no figure in a cell tagged main-figure: execute it first")


def write(notebook: Path = NOTEBOOK, figure: Path = FIGURE) -> Path:
    """Store the main figure of ``notebook`` as ``figure``."""
    return _small(main_figure(notebook), figure)


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


def _small(png: bytes, figure: Path) -> Path:
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(figure, optimize=True)
    return figure


if __name__ == "__main__":
    if sys.argv[1:] == ["--command"]:
        drawn = [write_command()]
    else:
        drawn = [write_sweep(Path(sys.argv[1]))] if len(sys.argv) > 1 else [write(), write(*CURED)]
    for path in drawn:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
