"""Sweeps over products of parameters; each run is stored under its own name, so that a sweep can be resumed."""

import contextlib
import hashlib
import itertools
import json
import math
import re
from pathlib import Path

import executors
import nbformat
import report_page
import run_store
import runner
import sweep_page
from environment import Refused, shortened
from parameters import check, items, parameters_of, read
from tqdm import tqdm

MOST_RUNS = 100_000  # of one sweep: they are checked and named before the first one runs


def axis(text: str, known: dict) -> tuple[str, list]:
    """``name=0:5`` (0 to 4), ``name=0:10:2`` or ``name=0.25,0.5,1`` as the name and its values.

    Parameters
    ----------
    text
        As given on the command line.
    known
        The notebook's parameters: the values of one that is a word are read as they stand.

    Raises
    ------
    Refused
        For anything else.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name.isidentifier() or not values:
        raise Refused(f"--sweep {text!r}: write name=first:end, name=first:end:step or name=value,value")
    if name == "output_dir":
        raise Refused("--sweep: output_dir is no axis, for the results of each run go beside its notebook; --output "
                      "says where all of them go")
    try:
        parameter = known.get(name)
        if re.fullmatch(r"[-+]?\d+(:[-+]?\d+){1,2}", values) and not isinstance((parameter or {}).get("default"), str):
            return name, _range(values)
        return name, [read(item, parameter) for item in items(values)]
    except Refused as error:
        raise Refused(f"--sweep {text!r}: {error}") from error


def _range(values: str) -> list[int]:
    try:
        found = range(*(int(part) for part in values.split(":")))
    except ValueError as error:
        raise Refused("a range is first:end or first:end:step, in whole numbers, its step not 0") from error
    if not found:
        raise Refused("this range is empty; its end is not among its values")
    if len(found) > MOST_RUNS:
        raise Refused(f"this range has {len(found)} values")
    return list(found)


def tasks(paths: list[Path], given: dict[str, dict], sweep: list[str], elsewhere: bool = False) -> list[run_store.Task]:
    """Every run of the product, checked against the notebooks' parameters; none twice.

    Parameters
    ----------
    paths
        The notebooks.
    given
        By the notebook's name: the parameters that are the same in every run.
    sweep
        The axes, as on the command line.
    elsewhere
        Whether the runs happen on other machines: then a run's name contains the device as it was given, because "auto"
        may be another device there.

    Raises
    ------
    Refused
        For a malformed sweep, a name given twice, an unknown parameter, a value of the wrong type.
    """
    found, count = {}, 0
    for path in paths:
        known = parameters_of(path)
        axes = [axis(text, known) for text in sweep]
        names = [name for name, _ in axes]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise Refused(f"--sweep names {', '.join(sorted(repeated))} twice")
        count += math.prod(len(values) for _, values in axes)
        if count > MOST_RUNS:
            raise Refused(f"--sweep: a product of {count:,} runs, more than {MOST_RUNS:,}: sweep fewer values, or run "
                          "several sweeps into one folder")
        notebook = nbformat.read(path, 4)
        cells = [cell.source for cell in notebook.cells]
        name = _namer(cells, elsewhere)
        about = {"title": report_page.title_of(notebook) or path.stem, "cells": _hash(cells)[:8],
                 "meanings": {key: entry["help"] for key, entry in known.items()}}
        for values in itertools.product(*(values for _, values in axes)):
            chosen = check(path.stem, {**given[path.stem], **dict(zip(names, values, strict=True))}, known)
            if chosen.pop("output_dir", ""):
                raise Refused("output_dir is not for sweeps, whose results go beside the notebooks; use --output")
            full = {**{key: entry["default"] for key, entry in known.items()}, **chosen}
            run = name(full)
            found[(path.stem, run)] = run_store.Task(str(path), chosen, about, run)
    return list(found.values())


def _namer(cells: list[str], elsewhere: bool):
    """The function that names a run of these cells by its parameters: a hash of both and of the package's version."""
    import smpcore
    from smpcore import device
    begun = hashlib.sha256(f"[{json.dumps(cells)}, ".encode())  # once, because it is long and the same in every run

    def name(parameters: dict) -> str:
        # Where the results go does not change what they are; "auto" is the device that it stands for on this machine.
        parameters = {key: value for key, value in parameters.items() if key != "output_dir"}
        if not elsewhere:
            with contextlib.suppress(ValueError, TypeError):
                parameters["device"] = device.describe(device.resolve(parameters.get("device", "auto")))
        digest = begun.copy()
        digest.update(f"{json.dumps(parameters, sort_keys=True)}, {json.dumps(smpcore.__version__)}]".encode())
        return digest.hexdigest()[:12]

    return name


def _hash(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def job(chosen, paths: list[Path], given: dict[str, dict], output: Path) -> int:
    """Run the missing runs of a sweep, then collect all finished ones; returns the exit code."""
    wanted = tasks(paths, given, chosen.sweep, elsewhere=chosen.connection is not None)
    runner.need_writable(output)
    runner.clean_sockets()
    with run_store.alone(output):
        return _run_missing(chosen, wanted, output)


def _run_missing(chosen, wanted: list[run_store.Task], output: Path) -> int:
    run_store.clean(output)
    missing = [task for task in wanted if chosen.force or not run_store.finished(task, output)]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there already (--force runs them again)")
    client = chosen.connection.client() if chosen.connection and missing else None
    failures = {}
    try:
        with (tqdm(total=len(missing), unit="run", disable=not missing) as bar,
              contextlib.closing(executors.execute(missing, output, chosen.jobs, client, chosen.force)) as ended):
            for task, error in ended:
                if error:
                    failures[task.run] = (task, shortened(error))
                bar.update()
    finally:
        collected = _collect(wanted, failures, output)
    print(f"{len(wanted) - len(failures)} of {len(wanted)} runs finished")
    for task, error in failures.values():
        print(f"FAILED {task.notebook} {task.run} {shortened(task.given)}: {error}")
    return 1 if failures or not collected else 0


def _collect(wanted, failures, output: Path) -> bool:
    try:
        for path in sweep_page.collect(wanted, failures, output):
            print(path)
        return True
    except OSError as error:
        print(f"the table could not be written: {error.strerror or error}. The runs are kept: with room on the disk "
              "the same command writes it")
        return False
