"""The record of a notebook's run: one small JSON file with its numbers.

`start` checks the parameters that every notebook has and seeds the random draws, `Run.save` writes the file,
`load` reads many of them into one table.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import smpcore
from smpcore.arguments import Kind, check, checked, whole
from smpcore.arguments import device as devices
from smpcore.experiments.run_files import is_finite, need_plain, write_atomically
from smpcore.experiments.run_table import load

__all__ = ["Run", "load", "start"]

_PACKAGES = ("numpy", "scipy", "torch", "matplotlib")


@dataclass(frozen=True)
class Run:
    """One run of a notebook.

    Attributes
    ----------
    notebook
        Its name without the ending, such as ``"02_relu"``.
    parameters
        The values of its parameters, as plain Python values.
    device
        Where the run computes.
    output_dir
        The folder that its JSON file goes to.
    """

    notebook: str
    parameters: dict
    device: torch.device
    output_dir: Path

    def check(self, holds: bool, name: str, must: str) -> None:
        """Refuse a parameter's value, by name.

        Raises
        ------
        ValueError
            Where ``holds`` is false: the parameter ``name``, its value, and what it ``must`` be.
        """
        if not holds:
            raise ValueError(f"parameter {name} = {self.parameters.get(name)!r}: it must {must}")

    @checked(results=Kind(dict, ": it must be a dictionary"),
             rows=Kind((list, type(None)), ": it must be a list of dictionaries",
                       lambda rows: all(isinstance(row, dict) for row in rows or [])),
             meanings=Kind((dict, type(None)), ": it must be a dictionary"))
    def save(self, results: dict, rows: list[dict] | None = None, meanings: dict[str, str] | None = None) -> Path:
        """Write ``<notebook>.json``: a temporary name first, then synced and renamed.

        Parameters
        ----------
        results
            The headline numbers by name; an estimated one has its standard error beside it, named ``_se``.
        rows
            The numbers behind the figures, one dictionary for each point.
        meanings
            What results are, with their units, by the results' names; a table of runs shows it with the column.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        TypeError
            For a result that is not one number, or not a finite one; for results, rows or meanings that are not what
            they have to be.
        ValueError
            For the meaning of a result that is not there, and for what no file can hold (`run_files.need_plain`).
        OSError
            Where the folder cannot be written, with its path.
        """
        for name, value in results.items():
            if not is_finite(_plain(value)):
                raise TypeError(f"result {name} = {repr(value)[:80]}, a {type(value).__name__}: a result is one finite "
                                "number")
        if unknown := set(meanings or {}) - set(results):
            raise ValueError(f"meanings of {', '.join(sorted(unknown))}, which are not among the results: "
                             f"{', '.join(results)}")
        content = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "seed": self.parameters["seed"],
            "device": devices.describe(self.device),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "results": _plain(results),
            "rows": _plain(rows or []),
            **({"meanings": meanings} if meanings else {}),
        }
        need_plain(content, self.notebook)
        path = self.output_dir / f"{self.notebook}.json"
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


@checked(notebook=Kind(str, ": it must be the notebook's name, such as '02_relu'",
                       lambda name: name.strip('.') and Path(name).name == name and name.isprintable(),
                       ": it must be a file's bare name"))
def start(notebook: str, *, seed: int, device: str, output_dir: str, **parameters) -> Run:
    """Check the three parameters that every notebook has, and seed numpy and torch.

    Parameters
    ----------
    notebook
        The notebook's name without its ending.
    seed
        At least 0.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    output_dir
        Where the results go; ``""`` means ``runs/<notebook>`` of the project.
    **parameters
        The notebook's other parameters, recorded with the results.

    Raises
    ------
    TypeError, ValueError
        For a notebook without a name, a seed that is not a whole number of at least 0, a device that is not there, an
        output folder that is not a string, and a parameter that no file can hold.
    """
    check({"parameter seed": seed}, {"parameter seed": whole(0)})
    if not isinstance(output_dir, str | os.PathLike):
        raise TypeError(f"parameter output_dir = {output_dir!r}: it must be the path of a folder, or ''")
    found = devices.resolve(device)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the libraries that draw from the global state
    torch.manual_seed(seed)
    # Notebooks that compare float32 with float64 mean its 24 bits, of which TF32 keeps 11.
    torch.backends.cudnn.allow_tf32 = False
    everything = _plain({"seed": seed, "device": str(device), "output_dir": str(output_dir), **parameters})
    for name, value in everything.items():
        need_plain(value, f"parameter {name}")
    folder = Path(output_dir) if str(output_dir) else _runs() / notebook
    return Run(notebook, everything, found, folder)


def _runs() -> Path:
    """``runs/`` of the project's root, or of the working folder where smpcore is installed elsewhere."""
    root = Path(smpcore.__file__).resolve().parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def _versions() -> dict:
    found = {"python": platform.python_version(), "smpcore": smpcore.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # matplotlib is an extra's
            found[name] = importlib.metadata.version(name)
    # With its build ("+cu130", "+cpu"), which the package's entry may lack.
    return found | {"torch": torch.__version__}


def _plain(value, depth: int = 0):
    """Numpy and torch values as types that JSON has; NaN and infinity, which it does not have, as None.

    Values that `need_plain` refuses stay as they are: lists that contain themselves, sparse tensors, objects.
    """
    if isinstance(value, dict) and depth < 99:
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 99:
        return [_plain(item, depth + 1) for item in value]
    dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    if dense or isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), depth + 1)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
