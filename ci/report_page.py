"""The page of executed notebooks, with a card for each; and the list of notebooks and their parameters."""

import base64
import html
import re
import sys
from pathlib import Path

import nbformat
import page_parts
from environment import shortened
from parameters import parameters_of
from runner import ABOUT, Outcome

from smpcore.experiments import run_files


def listing(paths: list[Path]) -> str:
    """Notebooks with their parameters, defaults and help."""
    lines = []
    for path in paths:
        lines.append(f"{path.stem}   {title_of(nbformat.read(path, 4)) or path.stem}")
        for key, entry in parameters_of(path).items():
            lines.append(f"    {key}: {entry['type']} = {entry['default']!r}   {entry['help']}")
    return "\n".join(lines)


def title_of(notebook) -> str:
    """The first heading of a notebook, or ""; cells that papermill adds to a failed notebook do not count."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "papermill-error-cell-tag" not in cell.metadata.get("tags", []):
            for line in cell.source.splitlines():
                if line.strip():
                    return shortened(line.strip().lstrip("# "), 200)
    return ""


def why_of(notebook) -> str:
    """The paragraph that says why a notebook matters, or ""."""
    found = re.search(r"\*\*Why it matters\.?\*\*\s*([^\n]+)", "\n".join(c.source for c in notebook.cells[:2]))
    return found.group(1) if found else ""


def main_figure(notebook) -> tuple[str, str]:
    """The PNG, in base64, of the cell tagged `main-figure`, else the first of the notebook, and its caption; else "".

    The caption is the text of the next cell that begins with a figure's number.
    """
    cells = notebook.cells
    for place in sorted(range(len(cells)), key=lambda k: "main-figure" not in cells[k].metadata.get("tags", [])):
        for png in page_parts.pngs_of(cells[place]):
            return png, caption_of(cells, place)
    return "", ""


def caption_of(cells, place: int) -> str:
    """The caption beneath a cell's figure, as plain words: it begins with the figure's number."""
    for cell in cells[place + 1:place + 3]:
        if cell.cell_type == "markdown" and re.match(r"\*+(Figure|Fig\.)", cell.source):
            words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell.source.split("\n\n")[0])
            return " ".join(re.sub(r"[*`$\\]", "", words).split())
    return ""


def write(outcomes: list[Outcome], folder: Path) -> Path:
    """`index.html`, one file, readable without a server: this run's notebooks, and those that ran there before.

    Raises
    ------
    OSError
        Where it cannot be written.
    """
    now = {outcome.name: outcome for outcome in outcomes}
    before = {outcome.name: outcome for outcome in _earlier(folder) if outcome.name not in now}
    everything = sorted({**before, **now}.items())
    cards = "".join(_card(outcome, folder, "" if name in now else "an earlier run: ") for name, outcome in everything)
    run_files.write_atomically(folder / "index.html", (
        f"{page_parts.start('Executed notebooks', 'body{max-width:60rem}')}<h1>Executed notebooks</h1>{cards}"
        f"<script>{page_parts.SORT}</script></html>\n"))
    return folder / "index.html"


def _earlier(folder: Path) -> list[Outcome]:
    found = []
    for about in folder.glob(f"[0-9][0-9]_*/{ABOUT}"):
        place = about.parent
        try:
            said = run_files.read_about(about)
            record = place / f"{place.name}.json"
            found.append(Outcome(place.name, place, said["seconds"], said.get("error", ""),
                                 run_files.read_record(record) if record.is_file() else {}))
        except (OSError, ValueError) as error:
            print(f"{place} has no card until it runs again, for its files cannot be used: {shortened(error)}",
                  file=sys.stderr)
    return found


def _card(outcome: Outcome, folder: Path, when: str) -> str:
    title, figure, caption = outcome.name, "", ""
    try:
        notebook = nbformat.read(outcome.notebook, 4)
        title, (figure, caption) = title_of(notebook) or outcome.name, main_figure(notebook)
        base64.b64decode(figure, validate=True)
    except Exception:  # no notebook, or a damaged one: the card says what is known
        figure = ""
    link = html.escape(outcome.notebook.relative_to(folder).as_posix())
    words = html.escape(caption or f"main figure of {title}", quote=True)
    results = outcome.record.get("results", {})
    rows = [[page_parts.cell(key), page_parts.cell(float(value))] for key, value in results.items()]
    state = html.escape(f"{when}failed: {outcome.error}" if outcome.error else f"{when}ran")
    return (f"<section><h2>{html.escape(title)}</h2><p class={'bad' if outcome.error else 'good'}>{state}, "
            f"{outcome.seconds:.0f} s"
            + (f" · <a href='{link}'>{html.escape(outcome.name)}.ipynb</a>" if outcome.notebook.is_file() else "")
            + "</p>" + (f"<img alt='{words}' src='data:image/png;base64,{figure}'>" if figure else "")
            + (page_parts.table({"result": "its name", "value": "six digits"}, rows, "Results") if rows else "")
            + "</section>")
