"""Weights from files of installed packages: the file's SHA-256 is checked, the package's code is never imported."""

import hashlib
import importlib.metadata
import os
from pathlib import Path

from smpcore.arguments import Kind, checked

__all__ = ["FILE", "carried_weights"]

FILE = Kind((str, os.PathLike, type(None)), ": it must be the path of the file with the weights, or None")


@checked(file=FILE)
def carried_weights(package: str, place: str, sha256: str, file: str | Path | None = None) -> bytes:
    """The content of a file with weights that an installed package carries.

    Parameters
    ----------
    package
        Its name and version on the registry, such as ``"mtcnn==1.0.0"``.
    place
        Where the file lies in the folder that packages are installed into.
    sha256
        The content's SHA-256, 64 hexadecimal digits. Reading a file of weights of many kinds runs code in it.
    file
        Another path to the same file.

    Raises
    ------
    ModuleNotFoundError
        Where the package is not installed.
    TypeError, ValueError
        For a file that is not a path, that is not there, or whose SHA-256 is another.
    """
    name, remedy = package.split("==")[0], f"run 'pip install {package}'"
    try:
        path = Path(file or str(importlib.metadata.distribution(name).locate_file(place)))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"the weights {place} come with the package {name}, which is not installed: "
                                  f"{remedy}") from error
    if not path.is_file():
        raise ValueError(f"the weights are not at {str(path)!r}: {remedy}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"the file {str(path)!r} has SHA-256 {found[:12]}…, not {sha256[:12]}…: it is not the known "
                         f"set of weights and is not opened; {remedy}")
    return content
