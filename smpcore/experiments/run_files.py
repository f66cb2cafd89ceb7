"""The files that a run leaves behind: written whole or not at all, and checked where they are read again."""

import json
import math
import os
import uuid
from pathlib import Path

__all__ = ["read_about", "read_record", "write_atomically"]


def read_record(path: Path) -> dict:
    """A run's record, ``NN_topic.json``, if it is whole.

    Returns
    -------
    dict
        With ``notebook``, ``parameters`` and ``results`` at least.

    Raises
    ------
    ValueError
        For what is not a record: in a few words, what it lacks.
    OSError
        For a file that cannot be read.
    """
    content = _read(path)
    if missing := [key for key in ("notebook", "parameters", "results") if key not in content]:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    if not isinstance(content["notebook"], str):
        raise ValueError("its notebook is not a name")
    for key in ("parameters", "results", "versions", "meanings"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"its {key} are not a dictionary")
    for name, value in content["results"].items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"its result {name} = {value!r} is not a finite number")
    return content


def read_about(path: Path) -> dict:
    """What the command that ran a notebook wrote beside the record, ``run.json``.

    Returns
    -------
    dict
        Among ``run``, ``seconds``, ``overhead``, ``threads``, ``cells``, ``title``, ``meanings`` and ``error``.

    Raises
    ------
    ValueError, OSError
        As `read_record`.
    """
    content = _read(path)
    if not isinstance(content.get("meanings", {}), dict):
        raise ValueError("its meanings are not a dictionary")
    if not isinstance(content.get("seconds"), int | float):
        raise ValueError("it has no seconds")
    return content


def _read(path: Path) -> dict:
    def refuse(word):
        raise ValueError(f"it has {word}, which is no number of JSON's")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    if not isinstance(content, dict):
        raise ValueError("it is not a record")
    return content


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or none: a reader, or a run killed half-way, never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
