"""The files of a run: written completely or not at all, and checked when they are written and when they are read.

One file that a later reader cannot take would stop every later table of its folder, so `need_plain` is applied on
both sides.
"""

import json
import math
import os
import uuid
from pathlib import Path

__all__ = ["need_plain", "read_about", "read_record", "write_atomically"]

_WORDS = ("run", "cells", "title", "error")  # of run.json, where they are there
_DEEPEST = 50  # levels of lists and dictionaries; Python's own limit is reached at about a thousand


def need_plain(value, name: str, depth: int = 0) -> None:
    """Refuse what JSON, a table or a page cannot hold.

    Parameters
    ----------
    value
        Dictionaries, lists, words, numbers, truths and None are taken.
    name
        What the value is called in the error.
    depth
        Levels around it.

    Raises
    ------
    ValueError
        For NaN, infinity and integers that no float64 holds (over 308 digits), for words with half a surrogate pair,
        for keys that are not words, for other types, and for more than 50 levels.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{name[:80]} is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{name} has a key of type {type(key).__name__}: keys are words")
            need_plain(key, f"a key of {name}", depth + 1)
            need_plain(item, f"{name}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            need_plain(item, f"{name}[{place}]", depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} holds half a surrogate pair, which no text file can hold") from error
    elif isinstance(value, int | float):
        if not (isinstance(value, bool) or is_finite(value)):
            raise ValueError(f"{name} is not a finite number of float64")
    elif value is not None:
        raise ValueError(f"{name} is a {type(value).__name__}, not a number, a word, a list or a dictionary")


def is_finite(value) -> bool:
    """Whether a value is a number that float64 holds; True and False are not numbers here."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of over 308 digits
        return False


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
    for name, value in content["results"].items():
        if not is_finite(value):
            raise ValueError(f"its result {name[:80]} = {repr(value)[:80]} is not a finite number")
    return _plain(content)


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
    if not is_finite(content.get("seconds")):
        raise ValueError("it has no seconds")
    return _plain(content)


def _read(path: Path) -> dict:
    def refuse(word):
        raise ValueError(f"it has {word}, which is no number of JSON's")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be read") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a record")
    for key in ("parameters", "results", "versions", "meanings"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"its {key} are not a dictionary")
    return content


def _plain(content: dict) -> dict:
    """The content, refused where a table or a page cannot hold it."""
    need_plain(content, "it")
    for name, value in (content.get("meanings", {}) | {key: content.get(key, "") for key in _WORDS}).items():
        if not isinstance(value, str):
            raise ValueError(f"its {name} is not text")
    return content


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or none: no reader finds a part of it, even if the run is killed half-way.

    UTF-8; half a surrogate pair, which UTF-8 has no bytes for, is written as ``\\ud800`` and the like.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
