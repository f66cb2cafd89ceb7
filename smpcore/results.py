"""What a notebook's run leaves behind: one small JSON file with its numbers.

`start` checks the parameters that every notebook has and seeds the random draws, `Run.save` writes the file,
`load` reads many of them into one table.
"""

import importlib.metadata
import json
import math
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import smpcore
from smpcore import device as devices

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
            raise ValueError(f"parameter {name} = {self.parameters[name]!r}: it must {must}")

    def save(self, results: dict, rows: list[dict] | None = None) -> Path:
        """Write ``<notebook>.json``: a temporary name first, then synced and renamed.

        Parameters
        ----------
        results
            The headline numbers by name; an estimated one has its standard error beside it, named ``_se``.
        rows
            The numbers behind the figures, one dictionary for each point.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        TypeError
            For a result that is not one number, or not a finite one.
        OSError
            Where the folder cannot be written, with its path.
        """
        for name, value in results.items():
            if not isinstance(_plain(value), int | float):
                raise TypeError(f"result {name} = {value!r}, a {type(value).__name__}: a result is one finite number")
        content = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "seed": self.parameters["seed"],
            "device": devices.describe(self.device),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "results": _plain(results),
            "rows": _plain(rows or []),
        }
        path = self.output_dir / f"{self.notebook}.json"
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


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
        For a seed that is not a whole number of at least 0, a device that is not there, an output folder that
        is not a string.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"parameter seed = {seed!r}: it must be a whole number")
    if seed < 0:
        raise ValueError(f"parameter seed = {seed!r}: it must be at least 0")
    if not isinstance(output_dir, str | os.PathLike):
        raise TypeError(f"parameter output_dir = {output_dir!r}: it must be the path of a folder, or ''")
    found = devices.resolve(device)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the libraries that draw from the global state
    torch.manual_seed(seed)
    everything = {"seed": seed, "device": device, "output_dir": str(output_dir), **parameters}
    folder = Path(output_dir) if str(output_dir) else _runs() / notebook
    return Run(notebook, _plain(everything), found, folder)


def load(folder: str | Path | list[Path]):
    """The runs below a folder as a table, one row for each.

    Parameters
    ----------
    folder
        The output of a sweep, or any folder with runs in it; or a list of them.

    Returns
    -------
    pandas.DataFrame
        Columns ``notebook``, the parameters by their bare names, the results by theirs (``result_`` before a
        name that a parameter has), ``version_…`` of each package, ``device``, ``threads``, ``seconds``,
        ``run`` and ``folder``. ``frame.attrs["meanings"]`` says what each column is, ``frame.attrs["kinds"]``
        whether it is a parameter, a result or about the run.

    Raises
    ------
    FileNotFoundError
        For a folder that is not there.
    """
    import pandas
    folders = [Path(one) for one in (folder if isinstance(folder, list) else [folder])]
    rows, meanings, kinds = [], {}, {}
    for one in folders:
        if not one.is_dir():
            raise FileNotFoundError(f"{one} is not a folder: give the output folder of a run or a sweep")
        for path in sorted(one.rglob("[0-9][0-9]_*.json")):
            # Unfinished, failed and damaged runs stand under other names than finished ones.
            inside = path.relative_to(one).parts[:-1]
            if any(part.startswith(".") or part.endswith("-failed") for part in inside):
                continue
            content = _record(path)
            if content is not None:
                rows.append(_row(path, content, meanings, kinds))
    order = {"about": 2, "parameter": 0, "result": 1}
    columns = sorted(kinds, key=lambda name: (name != "notebook", order[kinds[name]]))
    frame = pandas.DataFrame(rows, columns=columns)
    frame.attrs.update(meanings=meanings, kinds=kinds)
    return frame


def _record(path: Path) -> dict | None:
    """A run's record, or None for a file that is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"notebook", "parameters", "results"} <= set(content) else None


def _row(path: Path, content: dict, meanings: dict, kinds: dict) -> dict:
    more = _record_of_run(path.parent / "run.json")
    parameters = {key: value for key, value in content["parameters"].items()
                  if key not in ("output_dir", "device")}
    found = {}

    def put(name, value, kind, meaning):
        found[name] = value if isinstance(value, int | float | str | None) else json.dumps(value)
        kinds.setdefault(name, kind)
        meanings.setdefault(name, meaning)

    put("notebook", content["notebook"], "about", "the notebook that ran")
    for name, value in parameters.items():
        put(name, value, "parameter", more.get("meanings", {}).get(name) or f"parameter of {content['notebook']}")
    for name, value in content["results"].items():
        meaning = f"standard error of {name[:-3]}" if name.endswith("_se") else f"result of {content['notebook']}"
        put(f"result_{name}" if name in parameters else name, value, "result", meaning)
    put("device", content.get("device"), "about", "where it computed")
    put("threads", content.get("threads"), "about", "CPU threads of torch")
    put("seconds", more.get("seconds"), "about", "from start to end of the notebook, its kernel included")
    put("run", more.get("run"), "about", "the run's name: a hash of cells, parameters, version and device")
    put("folder", str(path.parent), "about", "where the executed notebook is")
    for package, version in content.get("versions", {}).items():
        put(f"version_{package}", version, "about", f"version of {package}")
    return found


def _record_of_run(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or none: a reader, or a run killed half-way, never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _runs() -> Path:
    """``runs/`` of the project's root, or of the working folder where smpcore is installed elsewhere."""
    root = Path(smpcore.__file__).resolve().parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def _versions() -> dict:
    found = {"python": platform.python_version(), "smpcore": smpcore.__version__}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found


def _plain(value):
    """Numpy and torch values as what JSON knows; NaN and infinity, which it does not, as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
