"""Many runs read into one table: `smpcore.experiments.results.load`."""

import json
import warnings
from pathlib import Path

import smpcore
from smpcore.experiments import run_files

__all__ = ["load"]

# Columns about the run itself; where a parameter or a result has the name, the column is called run_….
_ABOUT = {
    "notebook": "the notebook that ran",
    "device": "where it computed",
    "threads": "CPU threads of torch",
    "seconds": "from start to end of the run, in seconds, its kernel included",
    "overhead": "seconds of the run that its cells did not take: kernel, papermill and the writing of files",
    "run": "the run's name: a hash of cells, parameters, version and device",
    "cells": "hash of the notebook's cells: runs of one notebook that differ in it come from different editions",
    "folder": "where the executed notebook is",
}


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
        name that a parameter has), then what is said of the run: ``device``, ``threads``, ``seconds``,
        ``overhead``, ``run``, ``cells``, ``folder`` (``run_`` before a name that a parameter or a result has) and
        ``version_…`` of each package. ``frame.attrs["meanings"]`` says what each column is,
        ``frame.attrs["kinds"]`` whether it is a parameter, a result or about the run, ``frame.attrs["about"]`` how a
        column about the run is called here. Whole numbers stay whole where runs lack them.

    Raises
    ------
    TypeError, FileNotFoundError
        For what is not a folder's name, and for a folder that is not there.

    Warns
    -----
    UserWarning
        For each record that is damaged, and therefore left out.
    """
    pandas = smpcore.need("pandas")
    records, seen = [], set()
    for one in (folder if isinstance(folder, list | tuple) else [folder]):
        if not isinstance(one, str | Path):
            raise TypeError(f"folder = {folder!r}: it must be the output folder of a run or a sweep, or a list of them")
        place = Path(one)
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is not a folder: give the output folder of a run or a sweep")
        for path in sorted(place.rglob("[0-9][0-9]_*.json")):
            # Folders of unfinished, failed and damaged runs have other names than those of finished ones.
            inside = path.relative_to(place).parts[:-1]
            hidden = any(part.startswith(".") or part.endswith("-failed") for part in inside)
            if not hidden and path.resolve() not in seen:  # folders may be given twice, or one within another
                seen.add(path.resolve())
                records += _both(path)
    parameters = {name for _, record, _ in records for name in record["parameters"]} - {"output_dir", "device"}
    results = {name for _, record, _ in records for name in record["results"]}
    # Over all records, so that a column means one thing in every row.
    results = {name: f"result_{name}" if name in parameters else name for name in results}
    about = {name: f"run_{name}" if name in parameters | set(results.values()) else name for name in _ABOUT}
    rows, kinds, meanings = [], {}, {}
    for each in records:
        rows.append({})
        for name, kind, value, meaning in _entries(*each, results, about):
            rows[-1][name] = value if isinstance(value, int | float | str | None) else json.dumps(value)
            kinds.setdefault(name, kind)
            meanings.setdefault(name, {})[each[1]["notebook"]] = meaning
    order = {"about": 2, "parameter": 0, "result": 1}
    names = sorted(kinds, key=lambda name: (name != about["notebook"], order[kinds[name]]))
    frame = pandas.DataFrame({name: _column([row.get(name) for row in rows]) for name in names}, columns=names)
    frame.attrs.update(meanings={name: _meaning(meanings[name]) for name in names}, kinds=kinds, about=about)
    return frame


def _both(path: Path) -> list[tuple[Path, dict, dict]]:
    """A run's record and its run.json; nothing, and a warning, where one of the two is damaged."""
    try:
        about = path.parent / "run.json"
        return [(path, run_files.read_record(path), run_files.read_about(about) if about.exists() else {})]
    except FileNotFoundError:
        return []  # another sweep has moved it away meanwhile
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} is left out, for it or its run.json is damaged: {error}", stacklevel=3)
        return []


def _column(values: list):
    pandas = smpcore.need("pandas")
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values if value is not None)
    if whole and None in values and any(value is not None for value in values):
        try:
            return pandas.array(values, dtype="Int64")  # beside a gap, plain integers would become floats
        except OverflowError:
            return values
    return values


def _meaning(said: dict[str, str]) -> str:
    """What a column means: one sentence, or one for each notebook where they differ."""
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{notebook}: {text}" for notebook, text in sorted(said.items()))


def _entries(path: Path, record: dict, about: dict, results: dict, abouts: dict):
    """Of one run, each column's name, what kind it is, the value and what it means; ``results`` and ``abouts`` name the
    columns of what may be called as a parameter is."""
    notebook = record["notebook"]
    for name, value in record["parameters"].items():
        if name not in ("output_dir", "device"):
            yield name, "parameter", value, about.get("meanings", {}).get(name) or f"parameter of {notebook}"
    title = f"“{about['title']}” ({notebook})" if about.get("title") else notebook
    for name, value in record["results"].items():
        yield results[name], "result", value, record.get("meanings", {}).get(name) or _in_words(name, title)
    values = {**about, "notebook": notebook, "device": record.get("device"), "folder": str(path.parent),
              "threads": record.get("threads")}
    for name, meaning in _ABOUT.items():
        yield abouts[name], "about", values.get(name), meaning
    for package, version in record.get("versions", {}).items():
        yield f"version_{package}", "about", version, f"version of {package}"


def _in_words(name: str, title: str) -> str:
    """The meaning of a result from its name alone, with its unit where the name ends in one."""
    standard_error = name.endswith("_se")
    bare = name.removesuffix("_se")
    units = {"seconds": "in seconds", "ms": "in milliseconds", "mb": "in megabytes", "share": "a part of 1",
             "probability": "from 0 to 1", "percent": "in percent", "ratio": "a ratio", "error": "an error"}
    unit = next((f", {words}" for word, words in units.items() if word in bare.split("_")), "")
    return (f"{'standard error of ' if standard_error else ''}{bare.replace('_', ' ')}{unit}: result of {title}")
