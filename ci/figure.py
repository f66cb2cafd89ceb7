"""The README's picture, from the notebook that it shows: ``.venv/bin/python ci/figure.py``.

Takes the main figure out of the committed notebook 00 and stores it with a palette of 128 colours, which keeps
it under 100 kB.
"""

import base64
import io
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
FIGURE = ROOT / "notebooks" / "figures" / "start_here.png"


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
    from PIL import Image

    picture = Image.open(io.BytesIO(main_figure(notebook))).convert("RGB")
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(figure, optimize=True)
    return figure


if __name__ == "__main__":
    path = write()
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
