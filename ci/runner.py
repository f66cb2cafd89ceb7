"""Executes notebooks with papermill and stores the results of each run; needs the environment."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import environment
import papermill
import psutil
from environment import Refused
from parameters import names_code
from tqdm import tqdm
from traitlets.config import Config

NOTEBOOKS = environment.ROOT / "notebooks"
ABOUT = "run.json"
# A socket's address has room for 107 bytes.
_LONGEST_SOCKET = 100
# Seconds in which a kernel has to start: usually it takes one, on a busy machine or a slow disk far more.
START_WITHIN = 600


@dataclass
class Outcome:
    """One notebook's run."""

    name: str
    folder: Path
    seconds: float
    error: str = ""
    record: dict = field(default_factory=dict)
    cells: float = 0.0  # seconds that its cells took

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.name}.ipynb"


def available(source: Path) -> list[str]:
    """Names of the notebooks in a folder, without their ending, in order.

    Raises
    ------
    Refused
        Where there is none.
    """
    names = sorted(path.stem for path in source.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        raise Refused(f"there are no notebooks in {source}: their names begin with two digits, such as 01_topic.ipynb")
    return names


def choose(names: list[str], starts: list[str]) -> list[str]:
    """Those of the names that begin so.

    Raises
    ------
    Refused
        For a start that none has.
    """
    for start in starts:
        if not any(name.startswith(start) for name in names):
            raise Refused(f"no notebook begins with {start!r}; there are: {', '.join(names)}")
    return [name for name in names if not starts or any(name.startswith(start) for start in starts)]


def need_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be written.

    Raises
    ------
    Refused
        With the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refused(f"the output folder {folder} cannot be written: {error.strerror or error}. "
                      "Name another with --output") from error


def execute(paths: list[Path], given: dict[str, dict], folder: Path, jobs: int) -> list[Outcome]:
    """Every notebook, ``jobs`` at a time; a failing one, or one whose process dies, does not stop the others."""
    threads, caller = max(1, environment.cores() // jobs), os.getcwd()
    # One process for each: papermill changes its process's working folder, and a crash ends that process only.
    context = multiprocessing.get_context("spawn")
    ahead, running, outcomes = list(paths), {}, {}
    try:
        with tqdm(total=len(paths), unit="notebook") as bar:
            while ahead or running:
                while ahead and len(running) < jobs:
                    path = ahead.pop(0)
                    answer, to_us = context.Pipe(duplex=False)
                    process = context.Process(target=_in_process, args=(
                        to_us, path, given[path.stem], folder / path.stem, threads, caller))
                    process.start()
                    to_us.close()  # so that reading fails, instead of waiting, when the process has ended
                    running[answer] = path.stem, process
                for answer in wait(list(running)):
                    name, process = running.pop(answer)
                    outcomes[name] = _answered(answer, name, process, folder / name)
                    bar.update()
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
    return [outcomes[path.stem] for path in paths]


def _answered(answer, name: str, process, folder: Path) -> Outcome:
    try:
        return answer.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        outcome = Outcome(name, folder, 0.0, f"its process ended with {how} before the notebook did: was it killed, "
                          "or short of memory?")
        with contextlib.suppress(OSError):  # the outcome is returned in any case
            _tell(outcome)
        return outcome
    finally:
        process.join()
        answer.close()


def _in_process(to_parent, path: Path, given: dict, folder: Path, threads: int, caller: str) -> None:
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the parent as well, which says so
        try:
            outcome = execute_one(path, given, folder, threads, caller)
        except OSError as error:
            outcome = Outcome(path.stem, folder, 0.0, f"its results could not be kept: {error.strerror or error}")
        to_parent.send(outcome)


def execute_one(path: Path, given: dict, folder: Path, threads: int, caller: str) -> Outcome:
    """One notebook into a folder: the executed copy, the record of its numbers, and `run.json` about the run."""
    from smpcore.experiments import run_files
    name, begin = path.stem, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    given = {**given, "output_dir": given.get("output_dir") or str(folder)}
    record = Path(given["output_dir"]) / f"{name}.json"
    for stale in (record, folder / ABOUT):  # or an earlier run's numbers would be taken for those of this run
        stale.unlink(missing_ok=True)
    error, content = _papermill(path, given, folder / path.name, threads, caller), {}
    if not error and record.is_file():
        try:
            content = run_files.read_record(record)
        except ValueError as why:
            error = f"it wrote a record, {record.name}, that cannot be used: {why}"
    outcome = Outcome(name, folder, time.perf_counter() - begin, error, content, _seconds_of_cells(folder / path.name))
    _tell(outcome)
    return outcome


def _tell(outcome: Outcome) -> None:
    from smpcore.experiments import run_files
    about = {"seconds": round(outcome.seconds, 3), "error": outcome.error}
    run_files.write_atomically(outcome.folder / ABOUT, json.dumps(about) + "\n")


def _papermill(path: Path, given: dict, target: Path, threads: int, caller: str) -> str:
    """Execute; the error in a sentence, or "" where it ran."""
    settings = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    settings["TQDM_DISABLE"] = "1"
    if names_code(given):
        # A notebook runs in its own folder, but modules named by parameters are looked for in the caller's folder.
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, [caller, os.environ.get("PYTHONPATH")]))
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    sockets = Path(tempfile.mkdtemp(prefix=f"kernel-{os.getpid()}-"))
    error = ""
    try:
        papermill.execute_notebook(str(path), str(target), given, cwd=str(path.parent), progress_bar=False,
                                   kernel_name="python3", start_timeout=START_WITHIN, config=_transport(sockets))
    except papermill.PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    # After an interruption the folder stays: the kernel may be looking for it. `clean_sockets` removes it.
    shutil.rmtree(sockets, ignore_errors=True)
    return environment.shortened(error)


def _seconds_of_cells(notebook: Path) -> float:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return 0.0
    return sum(cell["metadata"].get("papermill", {}).get("duration") or 0.0 for cell in cells)


def _transport(folder: Path) -> Config:
    """How a notebook's kernel is reached: by sockets in a folder of its own, where the system has such sockets.

    Ports could be taken twice, and Jupyter warns that they are not encrypted. Jupyter's own choice for these sockets
    is one name in the notebooks' folder, which two kernels started at once would share.
    """
    name = folder / "socket"
    if os.name != "posix" or len(os.fsencode(name)) > _LONGEST_SOCKET:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": str(name)}})


def clean_sockets() -> None:
    """Remove the sockets' folders of runs of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob("kernel-*-*"):
        found = re.fullmatch(r"kernel-(\d+)-\w+", folder.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)
