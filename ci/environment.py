"""The project's own environment: `.venv` in its root, made from requirements.txt and kept up to date.

Standard library only: this runs before anything is installed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


class SetupError(Exception):
    """The environment cannot be made; the message says why and what would do."""


def need_python(version=sys.version_info) -> None:
    """Refuse a Python that is too old.

    Raises
    ------
    SetupError
        With the version that was found and the oldest that works.
    """
    if tuple(version[:2]) < OLDEST:
        raise SetupError(f"Python {version[0]}.{version[1]} is too old: run this with Python "
                         f"{OLDEST[0]}.{OLDEST[1]} or later")


def interpreter(root: Path = ROOT) -> Path:
    """The environment's Python, which may not be there yet."""
    windows = os.name == "nt"
    return root / ".venv" / ("Scripts" if windows else "bin") / ("python.exe" if windows else "python")


def fingerprint(root: Path = ROOT) -> str:
    """What the environment is made from; it is made again where this changes."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def ensure(root: Path = ROOT, say=print) -> Path:
    """Make `.venv` where it is missing, half-made or out of date, and give its Python.

    Raises
    ------
    SetupError
        Without `ensurepip`, without a network, or where an installation fails.
    """
    need_python()
    stamp, wanted, python = root / ".venv" / "made-from", fingerprint(root), interpreter(root)
    if python.exists() and stamp.is_file() and stamp.read_text().strip() == wanted:
        return python
    if not stamp.is_file() or not python.exists():
        # No stamp: its making was cut short, so nothing in it can be trusted.
        if (root / ".venv").exists():
            say("The environment in .venv is half-made: making it again.")
            shutil.rmtree(root / ".venv")
        say("Making the environment in .venv (once; some minutes, mostly to download torch) …")
        make(root)
    else:
        say("requirements.txt or pyproject.toml changed: bringing .venv up to date …")
        stamp.unlink()
    install(root, python)
    stamp.write_text(wanted + "\n")
    return python


def make(root: Path) -> None:
    """An empty environment with pip in it."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetupError(f"this Python has no {error.name}, which makes environments: install it "
                         "(on Debian and Ubuntu: apt install python3-venv), or install requirements.txt in an "
                         "environment of your own and add --here") from error
    made = subprocess.run([sys.executable, "-m", "venv", str(root / ".venv")], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(f"the environment could not be made: {(made.stderr or made.stdout).strip()}")


def install(root: Path, python: Path) -> None:
    """requirements.txt into the environment."""
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
         "-r", "requirements.txt"],
        cwd=root, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr or done.stdout).strip()
        network = any(sign in why for sign in ("NewConnectionError", "Temporary failure in name resolution",
                                               "Max retries exceeded", "Network is unreachable",
                                               "ConnectTimeout", "ProxyError"))
        advice = ("pip cannot reach the package index: connect to the network, or install requirements.txt in "
                  "an environment of your own and add --here" if network else
                  "see the lines above; `pip install -r requirements.txt` by hand shows the whole")
        raise SetupError("\n".join([*why.splitlines()[-6:], f"The installation failed: {advice}"]))
