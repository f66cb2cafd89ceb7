"""Sweeps: the product of parameters, each run kept under a name of its own, so that a sweep can be resumed."""

import contextlib
import hashlib
import itertools
import json
import os
import queue
import shutil
import socket
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import nbformat
import page
import runner
import yaml
from environment import ROOT
from runner import Refused
from tqdm import tqdm

RECORD = "run.json"
ANSWER_WITHIN = 5  # seconds in which a scheduler has to answer


@dataclass(frozen=True)
class Task:
    """One run of a sweep: a notebook, all of its parameters that differ from the defaults, its name."""

    notebook: str
    given: dict
    meanings: dict
    run: str

    def folder(self, output: Path) -> Path:
        return output / self.notebook / self.run


def axis(text: str) -> tuple[str, list]:
    """``name=0:5`` (0 to 4), ``name=0:10:2`` or ``name=0.25,0.5,1`` as the name and its values.

    Raises
    ------
    Refused
        For anything else.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.isidentifier() or not values.strip():
        raise Refused(f"--sweep {text!r}: write name=first:end, name=first:end:step or name=value,value")
    if ":" in values and "," not in values:
        try:
            found = list(range(*(int(part) for part in values.split(":"))))
        except (ValueError, TypeError) as error:
            raise Refused(f"--sweep {text!r}: a range is first:end or first:end:step, in whole numbers") from error
        if not found:
            raise Refused(f"--sweep {text!r}: this range is empty; its end is not among its values")
        return name, found
    try:
        found = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError as error:
        raise Refused(f"--sweep {text!r}: its values cannot be read as YAML") from error
    if any(value is None for value in found):
        raise Refused(f"--sweep {text!r}: a value is missing between two commas")
    return name, found


def tasks(names: list[str], given: dict[str, dict], sweep: list[str]) -> list[Task]:
    """Every run of the product, checked against the notebooks' parameters; none twice.

    Raises
    ------
    Refused
        For a malformed sweep, a name given twice, an unknown parameter, a value of the wrong type.
    """
    axes = [axis(text) for text in sweep]
    if repeated := {name for name, _ in axes if [other for other, _ in axes].count(name) > 1}:
        raise Refused(f"--sweep names {', '.join(sorted(repeated))} twice")
    found = {}
    for name in names:
        known = runner.parameters_of(name)
        sources = [cell.source for cell in nbformat.read(runner.NOTEBOOKS / f"{name}.ipynb", 4).cells]
        for values in itertools.product(*(values for _, values in axes)):
            point = dict(zip((axis_name for axis_name, _ in axes), values, strict=True))
            chosen = runner.check(name, {**given[name], **point}, known)
            full = {**{key: entry["default"] for key, entry in known.items()}, **chosen}
            task = Task(name, chosen, {key: entry["help"] for key, entry in known.items()}, _name(sources, full))
            found[(name, task.run)] = task
    return list(found.values())


def _name(sources: list[str], parameters: dict) -> str:
    import smpcore
    from smpcore import device
    # Where the results go says nothing of what they are; "auto" is what it stands for on this machine.
    parameters = {key: value for key, value in parameters.items() if key != "output_dir"}
    with contextlib.suppress(ValueError, TypeError):
        parameters["device"] = device.describe(device.resolve(parameters.get("device", "auto")))
    content = json.dumps([sources, parameters, smpcore.__version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def job(chosen, names: list[str], given: dict[str, dict], output: Path) -> int:
    """Run what is missing of a sweep, then collect what is there; the number of the exit."""
    wanted = tasks(names, given, chosen.sweep)
    _need_writable(output)
    missing = []
    for task in wanted:
        if chosen.force or not finished(task, output, print):
            missing.append(task)
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there already (--force runs them again)")
    failures = {}
    try:
        with tqdm(total=len(missing), unit="run", disable=not missing) as bar:
            for task, error in execute(missing, output, chosen.jobs, chosen.scheduler, chosen.force):
                if error:
                    failures[task.run] = (task, error)
                bar.update()
    finally:
        table, index = page.collect(wanted, failures, output)
        print(f"{table}\n{index}")
    done = len(wanted) - len(failures)
    print(f"{done} of {len(wanted)} runs finished")
    for task, error in failures.values():
        print(f"FAILED {task.notebook} {task.run} {task.given}: {error}")
    return 1 if failures else 0


def finished(task: Task, output: Path, say=print) -> bool:
    """Whether a run is there and whole; one that is not whole is named, set aside, and will be run again."""
    folder = task.folder(output)
    if not folder.exists():
        return False
    for name in (f"{task.notebook}.json", RECORD):
        try:
            whole = isinstance(json.loads((folder / name).read_text(encoding="utf-8")), dict)
            why = "" if whole else "it is not a record"
        except (OSError, ValueError) as error:
            why = str(error)
        if why:
            aside = folder.with_name(f".{task.run}.damaged-{uuid.uuid4().hex[:6]}")
            os.rename(folder, aside)
            say(f"{folder / name} is damaged ({why}): set aside as {aside.name}, run again")
            return False
    return True


def _need_writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".{uuid.uuid4().hex}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise Refused(f"the output folder {output} cannot be written: {error.strerror or error}. "
                      "Name another with --output") from error


def execute(missing: list[Task], output: Path, jobs: int, scheduler: str | None, force: bool = False):
    """Run tasks here one after another, or on Dask; yields (task, error) as they end, error "" where it ran."""
    if not missing:
        return
    if scheduler is None and jobs == 1:
        for task in missing:
            yield task, execute_one(task, str(output), os.cpu_count() or 1, force)
        return
    import distributed
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            cluster = stack.enter_context(distributed.LocalCluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=50))
            client = stack.enter_context(distributed.Client(cluster))
        else:
            client = stack.enter_context(_connected(scheduler))
        waiting = {client.submit(_on_worker, str(ROOT / "ci"), str(runner.NOTEBOOKS), task.__dict__, str(output),
                                 threads, force, key=f"{task.notebook}-{task.run}-{uuid.uuid4().hex[:6]}",
                                 pure=False): task for task in missing}
        for future in distributed.as_completed(waiting):
            task = waiting[future]
            try:
                yield task, future.result()
            except Exception as error:
                yield task, f"{type(error).__name__}: {error}"


def _connected(scheduler: str):
    """A client of a scheduler that exists; in a thread of its own, for one that is silent holds its caller."""
    import distributed
    answer = queue.Queue()

    def connect():
        try:
            answer.put(distributed.Client(scheduler, timeout=ANSWER_WITHIN))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        found = answer.get(timeout=ANSWER_WITHIN)
    except queue.Empty:
        found = TimeoutError()
    if isinstance(found, Exception):
        raise Refused(f"the scheduler {scheduler} does not answer within {ANSWER_WITHIN} s: is it running, "
                      "and does its address begin with tcp:// ?") from found
    return found


def _on_worker(ci: str, notebooks: str, task: dict, output: str, threads: int, force: bool) -> str:
    """What a worker is sent: it imports this module from the project's folder, which it has to see."""
    import sys
    if ci not in sys.path:
        sys.path.insert(0, ci)
    from pathlib import Path

    import runner
    import sweep
    runner.NOTEBOOKS = Path(notebooks)
    return sweep.execute_one(sweep.Task(**task), output, threads, force)


def execute_one(task: Task, output: str, threads: int, force: bool = False) -> str:
    """One run under a temporary name, synced, then renamed: a run is there whole or not at all.

    Returns
    -------
    str
        "" where it ran, else the error in a sentence; a failed notebook is kept in ``<run>-failed``.
    """
    final = task.folder(Path(output))
    work = final.with_name(f".{task.run}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    failed = final.with_name(f"{task.run}-failed")
    try:
        with _gpu_alone(task):
            # The results belong beside the notebook, whatever the caller named.
            outcome = runner.execute_one(task.notebook, {**task.given, "output_dir": str(work)}, str(work), threads)
        if outcome.error:
            shutil.rmtree(failed, ignore_errors=True)
            os.rename(work, failed)
            return outcome.error
        record = {"run": task.run, "seconds": round(outcome.seconds, 3), "threads": threads,
                  "meanings": task.meanings}
        (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        for path in work.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if force:
            shutil.rmtree(final, ignore_errors=True)
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


@contextlib.contextmanager
def _gpu_alone(task: Task):
    """A GPU is shared out one run at a time: runs on it wait for each other, runs on CPUs do not."""
    from smpcore import device
    try:
        found = device.resolve(task.given.get("device", "auto"))
    except (ValueError, TypeError):
        found = None  # the run itself refuses it, by name
    with contextlib.ExitStack() as stack:
        if found is not None and found.type == "cuda":
            with contextlib.suppress(ImportError, ValueError):
                from distributed import Lock, get_worker
                get_worker()  # a ValueError outside a cluster, where runs follow one another anyway
                stack.enter_context(Lock(f"smpcore {socket.gethostname()} {found}"))
        yield
