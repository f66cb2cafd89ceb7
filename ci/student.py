"""Copies of the notebooks for students: without solutions and outputs, each exercise with a check of the answer."""

import re
import shutil
from pathlib import Path

import nbformat
from environment import Refused


def copy_of(notebook):
    """A student's copy of a notebook: without cells tagged ``solution``, outputs and execution counts."""
    copied = nbformat.from_dict(notebook)
    copied.cells = [cell for cell in copied.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in copied.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copied


def write(paths: list[Path], folder: Path) -> list[Path]:
    """The copies, with the pictures that they show, in a folder of their own.

    Raises
    ------
    Refused
        For a folder of notebooks that holds something already: a student's work is never overwritten.
    """
    taken = [path.name for path in paths if (folder / path.name).exists()]
    if taken:
        raise Refused(f"--student {folder}: it has {taken[0]} already, maybe with answers in it; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            nbformat.write(copy_of(notebook), folder / path.name)
            for name in set(re.findall(r"\]\((figures/[\w.]+)\)", "\n".join(cell.source for cell in notebook.cells))):
                (folder / "figures").mkdir(exist_ok=True)
                shutil.copyfile(path.parent / name, folder / name)
    except OSError as error:
        raise Refused(f"--student {folder}: {error.strerror or error}") from error
    return [folder / path.name for path in paths]
