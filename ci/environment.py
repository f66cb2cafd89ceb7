"""The project's own environment: `.venv` in its root, made from requirements.txt and kept up to date.

It uses the standard library only, because it runs before anything is installed, and no syntax newer than Python 3.6, so
that an old Python can read this file and print why it is refused.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
_UNREACHABLE = ("NewConnectionError", "Temporary failure in name resolution", "Max retries exceeded",
                "Network is unreachable", "ConnectTimeout", "ProxyError")


class Refused(Exception):
    """A request that cannot be run; nothing was started."""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


def shortened(text, most=1000):
    """A sentence that fits a terminal, a page and any text file.

    Of more than ``most`` characters the middle is replaced by a note; what UTF-8 cannot hold is written as ``\\ud800``.
    """
    text = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= most:
        return text
    return f"{text[:most // 2]} … ({len(text) - most} characters are left out) … {text[-(most // 2):]}"


def need_python(version=None):
    """Refuse a Python that is too old.

    Raises
    ------
    SetupError
        With the version that was found and the oldest that works.
    """
    found = sys.version_info if version is None else version
    if tuple(found[:2]) < OLDEST:
        raise SetupError(f"Python {found[0]}.{found[1]} is too old: run this with Python {OLDEST[0]}.{OLDEST[1]} or "
                         "later")


def is_too_old():
    """Whether this Python is too old; if so, print that."""
    try:
        need_python()
    except SetupError as error:
        print(error, file=sys.stderr)
        return True
    return False


def go_on(script, given, here):
    """Run the script again in the project's environment; return if it runs there already.

    The process itself becomes the environment's Python where the system can do that: Ctrl-C, and whatever ends this
    process, then reaches the one that works.

    Parameters
    ----------
    script
        The path of the script to go on with; it is given ``--here``.
    given
        Its other arguments.
    here
        Whether it was told to stay with the interpreter that runs it.

    Returns
    -------
    int or None
        The number to exit with, or None: go on here.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal of another encoding has no "…", which is no failure
    if here:
        return None
    try:
        python = ensure()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted while the environment was made: the next start makes it again.", file=sys.stderr)
        return 130
    return become([str(python), str(Path(script).resolve()), "--here", *list(given)])


def become(command):
    """Replace this process by a command; where the system cannot, run it as a child and return its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child handles Ctrl-C; this process waits for it
    return subprocess.call(command)


def interpreter(root=ROOT):
    """The environment's Python, which may not be there yet."""
    windows = os.name == "nt"
    return root / ".venv" / ("Scripts" if windows else "bin") / ("python.exe" if windows else "python")


def made_from(root=ROOT):
    """What the environment is made from, line by line; it is made again, or brought up to date, where one changes."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((root / name).read_bytes())
    return [f"Python {sys.version_info[0]}.{sys.version_info[1]}", str(root.resolve()), digest.hexdigest()]


def _say(sentence):
    print(sentence, flush=True)  # before what pip says


def ensure(root=ROOT, say=_say):
    """Make `.venv` where it is missing, half-made or out of date, and give its Python.

    Raises
    ------
    SetupError
        Without `ensurepip`, without a network, where an installation fails, where `.venv` is a link or a file, or where
        the project's folder cannot be written.
    """
    need_python()
    if _is_ready(root):
        return interpreter(root)
    try:
        with _alone(root, say):
            if not _is_ready(root):  # another start may have made it meanwhile
                _bring_up_to_date(root, say)
    except OSError as error:
        raise SetupError(f"the environment cannot be made in {root}: {error}") from error
    return interpreter(root)


def _stamp(root):
    """The lines that a finished installation has written; none before it is finished."""
    try:
        return (root / ".venv" / "made-from").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _is_ready(root):
    return interpreter(root).exists() and _stamp(root) == made_from(root)


def _bring_up_to_date(root, say):
    place, found, wanted = root / ".venv", _stamp(root), made_from(root)
    if place.is_symlink() or place.is_file():
        kind = "link" if place.is_symlink() else "file"
        raise SetupError(f"{place} is a {kind}, not an environment that this command made: remove it, or add --here "
                         "to use the interpreter that runs this")
    if found[:2] == wanted[:2] and interpreter(root).exists():
        say("requirements.txt or pyproject.toml changed: bringing .venv up to date …")
        (place / "made-from").unlink()
    else:
        if place.exists():
            say(_why_again(found, wanted))
            shutil.rmtree(str(place))
        say("Making the environment in .venv (once; some minutes, mostly to download torch) …")
        make(root)
    install(root, interpreter(root))
    (place / "made-from").write_text("\n".join(wanted) + "\n", encoding="utf-8")


def _why_again(found, wanted):
    # No stamp: its making was cut short, so nothing in it can be trusted.
    if len(found) != len(wanted):
        return "The environment in .venv is half-made: making it again."
    if found[0] != wanted[0]:
        return f"The environment in .venv is one of {found[0]}, and this is {wanted[0]}: making it again."
    if found[1] != wanted[1]:
        return f"The environment in .venv was made in {found[1]}, whose code it would run: making it again."
    return "The environment in .venv has no Python: making it again."


@contextlib.contextmanager
def _alone(root, say):
    """One start at a time makes the environment; the others wait. The system frees the lock when a process ends."""
    folder = root / "runs"  # which git ignores, and which outlives .venv
    folder.mkdir(exist_ok=True)
    with (folder / ".environment.lock").open("a+") as file:
        if not _locked(file):
            say("Another start is making the environment in .venv: waiting for it …")
            while not _locked(file):
                time.sleep(0.5)
        yield


def _locked(file):
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make(root):
    """An empty environment with pip in it."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetupError(f"this Python has no {error.name}, which makes environments: install it (on Debian and "
                         "Ubuntu: apt install python3-venv), or install requirements.txt in an environment of your "
                         "own and add --here") from error
    made = subprocess.run([sys.executable, "-m", "venv", str(root / ".venv")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        raise SetupError("the environment could not be made: " + made.stdout.strip())


def install(root, python):
    """requirements.txt into the environment; what pip says of its progress goes to the terminal."""
    done = subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check",
                           "-r", "requirements.txt"],
                          cwd=str(root), stdout=2, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        why = done.stderr.strip()
        advice = ("pip cannot reach the package index: connect to the network, or install requirements.txt in an "
                  "environment of your own and add --here" if any(sign in why for sign in _UNREACHABLE) else
                  "see the lines above; `pip install -r requirements.txt` by hand shows the whole")
        raise SetupError("\n".join([*why.splitlines()[-6:], "The installation failed: " + advice]))


def cores():
    """How many cores this process may use: those of the machine, within the limits of affinity and cgroup."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        found = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        found = min(found, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(1, found)
