"""Stores each run of a sweep completely or not at all, and checks runs that are stored already."""

import contextlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import runner

_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{6}")


@dataclass(frozen=True)
class Task:
    """One run of a sweep."""

    path: str  # of the notebook
    given: dict  # all of its parameters that differ from the defaults
    about: dict  # what its record says beside the numbers: title, meanings of the parameters, hash of the cells
    run: str  # its name

    @property
    def notebook(self) -> str:
        return Path(self.path).stem

    def folder(self, output: Path) -> Path:
        return output / self.notebook / self.run


def _temporary(final: Path) -> Path:
    """A hidden name beside a run's own, with the host and the process that write it."""
    return final.with_name(f".{final.name[:12]}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")


def clean(output: Path) -> None:
    """Remove what runs of this machine left under temporary names when they were killed."""
    for place in output.glob("[0-9][0-9]_*/.*"):
        found = _TEMPORARY.fullmatch(place.name)
        if found and found["host"] == socket.gethostname() and not psutil.pid_exists(int(found["process"])):
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def alone(output: Path, say=print):
    """Let one sweep at a time work in a folder; another waits, and then uses the finished runs.

    The lock is on the folder itself, and the system releases it when the process ends, in whichever way. Where there
    are no such locks (Windows, some network file systems), two sweeps do some runs twice and keep the first of each.
    """
    try:
        import fcntl
        folder = os.open(output, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another sweep is at work in {output}: waiting for it (Ctrl-C ends the waiting)")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)


def finished(task: Task, output: Path, say=print) -> bool:
    """Whether a run is there and whole; one that is not whole is named, set aside, and will be run again."""
    from smpcore.experiments import run_files
    folder = task.folder(output)
    if not folder.exists():
        return False
    for name, read in ((f"{task.notebook}.json", run_files.read_record), (runner.ABOUT, run_files.read_about)):
        try:
            read(folder / name)
        except (OSError, ValueError) as error:
            aside = folder.with_name(f".{task.run}.damaged-{uuid.uuid4().hex[:6]}")
            os.rename(folder, aside)
            say(f"{folder / name} is damaged ({error}): set aside as {aside.name}, run again")
            return False
    return True


def execute_one(task: Task, output: Path, threads: int, caller: str, force: bool = False) -> str:
    """One run under a temporary name, synced, then renamed: a run is there whole or not at all.

    Returns
    -------
    str
        "" where it ran, else the error in a sentence; a failed notebook is kept in ``<run>-failed``.
    """
    begin = time.perf_counter()
    final = task.folder(output)
    work, failed = _temporary(final), final.with_name(f"{task.run}-failed")
    try:
        with _gpu_alone(task):
            waited = time.perf_counter() - begin
            outcome = runner.execute_one(Path(task.path), task.given, work, threads, caller)
        error = outcome.error or ("" if outcome.record else (
            f"it left no record {task.notebook}.json: its last cell has to call save() of what "
            "smpcore.results.start(…) gave, with the parameter output_dir"))
        if error:
            with contextlib.suppress(OSError):  # the notebook's own error is the one to report
                _put(work, failed)
            return error
        seconds = time.perf_counter() - begin - waited
        about = {"run": task.run, "seconds": round(seconds, 3), "overhead": round(seconds - outcome.cells, 3),
                 "threads": threads, **task.about}
        (work / runner.ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        _sync(work)
        if force:
            _put(work, final)
        else:
            try:
                os.rename(work, final)
            except OSError:
                # Another sweep finished the same run meanwhile; the two are equal, and the first stays.
                if not final.exists():
                    raise
        shutil.rmtree(failed, ignore_errors=True)
        return ""
    except OSError as error:
        return f"its results could not be kept: {error.strerror or error}"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(new: Path, place: Path) -> None:
    """Rename a folder to its final name; an older folder of that name is deleted only afterwards."""
    for attempt in range(5):
        aside = _temporary(place)
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, aside)
        try:
            os.rename(new, place)
            return
        except OSError:
            # Another sweep stored the same run meanwhile, or the disk failed: in the latter case restore the old one.
            if aside.exists() and not place.exists():
                os.rename(aside, place)
            if attempt == 4:
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def _gpu_alone(task: Task):
    """One run at a time uses a GPU: runs on it wait for each other, runs on CPUs do not."""
    from smpcore import device
    try:
        found = device.resolve(task.given.get("device", "auto"))
    except (ValueError, TypeError):
        found = None  # the run itself refuses the device, with its name
    with contextlib.ExitStack() as stack:
        if found is not None and found.type == "cuda":
            with contextlib.suppress(ImportError, ValueError):
                from distributed import Lock, get_worker
                get_worker()  # a ValueError outside a cluster, where runs follow one another anyway
                visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
                stack.enter_context(Lock(f"smpcore {socket.gethostname()} {visible} {found}"))
        yield
