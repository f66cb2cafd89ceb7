#!/usr/bin/env python3
"""The contract that every notebook keeps to, as a script.

    python ci/notebooks.py                check them all
    python ci/notebooks.py --execute 02   execute the committed notebook on its defaults, in place
    python ci/notebooks.py --fold         fold solutions and set-up, without executing anything
"""

import ast
import json
import os
import re
import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
COMMON = ("seed", "device", "output_dir")
LARGEST = 500_000
# The most lines of code that a reader sees before the first figure; set-up code beyond them is folded.
FIRST_LINES = 12
# By tag: what JupyterLab hides of such a cell until the reader unfolds it.
FOLDS = {"solution": ("source_hidden", "outputs_hidden"), "hide-input": ("source_hidden",)}
_PLACE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|usr)/|[A-Z]:\\\\")
_DATE = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b")


def problems(path: Path) -> list[str]:
    """How a notebook breaks the contract, one sentence for each point; empty if it keeps to all of it."""
    notebook = nbformat.read(path, as_version=4)
    cells, found = notebook.cells, []
    code = [cell for cell in cells if cell.cell_type == "code"]
    text = [cell.source for cell in cells if cell.cell_type == "markdown"]

    def tagged(tag):
        return [place for place, cell in enumerate(cells) if tag in cell.metadata.get("tags", [])]

    if path.stat().st_size > LARGEST:
        found.append(f"it has {path.stat().st_size // 1000} kB, more than {LARGEST // 1000}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    # From the file itself: nbformat adds missing ids when it reads.
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    if len(set(ids)) != len(ids) or not all(ids):
        found.append("its cells do not all have an id of their own")
    if [cell.execution_count for cell in code if cell.source.strip()] != list(range(1, len(code) + 1)):
        found.append("it is not executed from top to bottom: ci/notebooks.py --execute does it")
    for cell in code:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if lines and lines[-1].endswith(";"):
            found.append(f"cell {cell.id} ends in a semicolon, which hides its output here but not from a comparison")
        if len(lines) > 30:
            found.append(f"cell {cell.id} has {len(lines)} lines of code, which belong in smpcore")
        if "nbval-check-output" in cell.metadata.get("tags", []):
            shown = str(cell.outputs)
            if _DATE.search(shown) or _PLACE.search(shown):
                found.append(f"cell {cell.id} compares an output with a date or a place in it")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {cell.id} ends in {output.ename}")
            if _PLACE.search(str(output.get("text", ""))):
                found.append(f"cell {cell.id} shows a path of the machine that ran it")
    found += _parameters(cells, tagged("parameters"))
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        found.append("its first cell is not a title")
    elif ".ipynb)" not in cells[0].source or "minutes" not in cells[0].source:
        found.append("its first cell says nothing of minutes, or links to no other notebook")
    ending = "\n".join(text[1:]).lower()
    for heading in ("summary", "exercises", "references"):
        if not re.search(rf"^#+ .*{heading}", ending, re.M):
            found.append(f"it has no heading with {heading}")
    found += _exercises(cells)
    found += [f"cell {cell.id} is not folded: ci/notebooks.py --fold does it" for cell in code if not _folded(cell)]
    visible = _lines_before_figure(code)
    if visible > FIRST_LINES:
        found.append(f"a reader sees {visible} lines of code before the first figure, more than {FIRST_LINES}: "
                     "tag what sets up with hide-input")
    if len(tagged("main-figure")) != 1:
        found.append("not just one cell is tagged main-figure")
    if not tagged("nbval-check-output"):
        found.append("no output is compared: no cell is tagged nbval-check-output")
    if not any(re.search(r"^\s*assert ", cell.source, re.M) for cell in code
               if "check" not in cell.metadata.get("tags", [])):
        found.append("no cell asserts its claim")
    if ".save(" not in "".join(cell.source for cell in code):
        found.append("it writes no results")
    return [f"{path.name}: {sentence}" for sentence in found]


def _exercises(cells) -> list[str]:
    """Each exercise's cell is followed by its solution's, and that by a check of the answer."""
    tags = ("exercise", "solution", "check")
    order = [(tag, cell.id) for cell in cells if cell.cell_type == "code"
             for tag in tags if tag in cell.metadata.get("tags", [])]
    counts = [sum(found == tag for found, _ in order) for tag in tags]
    if not order or len(set(counts)) > 1:
        return ["it has " + ", ".join(f"{count} cells tagged {tag}" for count, tag in zip(counts, tags, strict=True))]
    return [f"cell {name}, tagged {tag}, stands where one tagged {other} should"
            for (tag, name), other in zip(order, tags * counts[0], strict=True) if tag != other][:1]


def _folded(cell) -> bool:
    hidden = cell.metadata.get("jupyter", {})
    return all(hidden.get(part) for tag in cell.metadata.get("tags", []) for part in FOLDS.get(tag, ()))


def _lines_before_figure(code) -> int:
    """Visible lines of code up to the first figure, those of its own cell included."""
    count = 0
    for cell in code:
        if "hide-input" not in cell.metadata.get("tags", []):
            count += sum(bool(line.strip()) for line in cell.source.splitlines())
        if any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})):
            return count
    return 0


def fold(notebook) -> None:
    """Fold solutions and set-up cells in JupyterLab."""
    for cell in notebook.cells:
        parts = [part for tag in cell.metadata.get("tags", []) for part in FOLDS.get(tag, ())]
        if cell.cell_type == "code" and parts:
            cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), **dict.fromkeys(parts, True)}
            if "outputs_hidden" in parts:
                cell.metadata["collapsed"] = True  # the same for the classic notebook


def _parameters(cells, places) -> list[str]:
    if len(places) != 1:
        return [f"{len(places)} cells are tagged parameters, not one"]
    source = cells[places[0]].source
    lines, names, found = source.splitlines(), [], []
    for node in ast.parse(source).body:
        name = node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else None
        if name is None:
            found.append(f"line {node.lineno} of its parameters is not `name: type = value  # help`")
            continue
        names.append(name)
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError):
            found.append(f"the default of parameter {name} is not a literal")
        if "#" not in lines[node.end_lineno - 1]:
            found.append(f"parameter {name} has no help comment")
    return found + [f"it has no parameter {name}" for name in COMMON if name not in names]


def execute(path: Path) -> None:
    """Run a notebook on its defaults and write it back, without timings: the same bytes each time."""
    from nbclient import NotebookClient
    # On a slow machine progress bars would appear in the committed outputs.
    os.environ["TQDM_DISABLE"] = "1"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, record_timing=False, coalesce_streams=True, timeout=600, startup_timeout=600,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    fold(notebook)
    nbformat.write(notebook, path)


def main(given=None) -> int:
    """The script."""
    given = list(sys.argv[1:] if given is None else given)
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    task = next((word for word in given if word in ("--execute", "--fold")), None)
    if task:
        starts = [word for word in given if word != task]
        for path in paths:
            if not starts or any(path.name.startswith(start) for start in starts):
                print(f"{task.removeprefix('--')}: {path.name}", flush=True)
                if task == "--execute":
                    execute(path)
                    continue
                notebook = nbformat.read(path, as_version=4)
                fold(notebook)
                nbformat.write(notebook, path)
        return 0
    found = [sentence for path in paths for sentence in problems(path)]
    print("\n".join(found) or f"{len(paths)} notebooks keep to the contract")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
