"""One run of a sweep: there whole or not at all, whatever goes wrong."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import run_store
import runner
import tiny

CI = Path(__file__).resolve().parent.parent.parent / "ci"

RECORD = {"notebook": "01_good", "parameters": {}, "results": {"answer": 1.0}}
RUN = "0123456789ab"


@pytest.fixture
def task(tmp_path):
    return run_store.Task(str(tmp_path / "notebooks/01_good.ipynb"), {"seed": 3}, {"cells": "c", "title": "T"}, RUN)


@pytest.fixture
def ran(task, monkeypatch):
    """Runs that take no time: what `answer` holds is what comes of them."""
    answer = {"error": "", "record": RECORD}

    def execute(path, given, folder, threads, caller):
        folder.mkdir(parents=True)
        (folder / path.name).write_text(answer["error"] or "executed")
        if answer["record"]:
            (folder / f"{path.stem}.json").write_text(json.dumps(answer["record"]))
        return runner.Outcome(path.stem, folder, 1.0, answer["error"], answer["record"], cells=0.0)

    monkeypatch.setattr(runner, "execute_one", execute)
    return answer


def execute(task, output, force=False):
    return run_store.execute_one(task, output, 1, "/", force)


def test_a_run_is_kept_with_what_is_said_of_it(task, ran, tmp_path):
    assert execute(task, tmp_path) == ""
    assert run_store.finished(task, tmp_path)
    about = json.loads((task.folder(tmp_path) / "run.json").read_text(encoding="utf-8"))
    assert about["run"] == RUN
    assert (about["threads"], about["cells"], about["title"]) == (1, "c", "T")
    assert 0 <= about["overhead"] <= about["seconds"]
    assert os.listdir(tmp_path / "01_good") == [RUN]


@pytest.mark.parametrize(("name", "text", "why"), [
    ("01_good.json", '{"results": ', "Expecting value"),
    ("01_good.json", "{}", "it has no notebook"),
    ("01_good.json", None, "No such file"),
    ("run.json", "{}", "it has no seconds"),
])
def test_a_damaged_result_is_named_set_aside_and_run_again(task, ran, tmp_path, name, text, why):
    assert execute(task, tmp_path) == ""
    folder, said = task.folder(tmp_path), []
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    assert not run_store.finished(task, tmp_path, said.append)
    assert said[0].startswith(f"{folder / name} is damaged (")
    assert why in said[0]
    assert "set aside as ." in said[0]
    assert not folder.exists()
    assert list(folder.parent.glob(".*damaged*"))


def test_a_notebook_that_leaves_no_record_has_failed(task, ran, tmp_path):
    ran["record"] = {}
    assert execute(task, tmp_path).startswith("it left no record 01_good.json: its last cell has to call save()")
    assert not run_store.finished(task, tmp_path)
    assert os.listdir(tmp_path / "01_good") == [f"{RUN}-failed"]


def test_a_notebook_may_make_folders_of_its_own(tmp_path):
    tiny.write(tmp_path / "notebooks", "01_good", "pathlib.Path(output_dir, 'sub').mkdir()\n"
               "pathlib.Path(output_dir, 'sub', 'file').write_text('x')", plain=True)
    task = run_store.Task(str(tmp_path / "notebooks/01_good.ipynb"), {}, {}, RUN)
    assert execute(task, tmp_path) == ""
    assert (task.folder(tmp_path) / "sub/file").read_text(encoding="utf-8") == "x"


def test_a_full_disk_is_said(task, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "execute_one", full)
    assert execute(task, tmp_path) == "its results could not be kept: No space left on device"


def test_a_run_that_is_forced_leaves_the_old_one_until_it_stands(task, ran, tmp_path, monkeypatch):
    assert execute(task, tmp_path) == ""
    old = task.folder(tmp_path)
    (old / "mark").write_text("old")
    real = os.rename

    def full(source, target):
        if Path(target) == old and "run.json" in os.listdir(source) and not (Path(source) / "mark").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    assert execute(task, tmp_path, force=True) == "its results could not be kept: No space left on device"
    assert (old / "mark").read_text(encoding="utf-8") == "old"
    monkeypatch.undo()


def test_a_forced_run_takes_the_place_of_the_old_one(task, ran, tmp_path):
    assert execute(task, tmp_path) == ""
    (task.folder(tmp_path) / "mark").write_text("old")
    assert execute(task, tmp_path, force=True) == ""
    assert not (task.folder(tmp_path) / "mark").exists()
    ran["error"] = "RuntimeError: now"
    assert execute(task, tmp_path, force=True) == "RuntimeError: now"
    assert run_store.finished(task, tmp_path)  # what was there is still there
    assert sorted(os.listdir(tmp_path / "01_good")) == [RUN, f"{RUN}-failed"]


def test_the_first_of_two_equal_runs_stays(task, ran, tmp_path):
    assert execute(task, tmp_path) == ""
    (task.folder(tmp_path) / "mark").write_text("first")
    assert execute(task, tmp_path) == ""
    assert (task.folder(tmp_path) / "mark").read_text(encoding="utf-8") == "first"
    assert os.listdir(tmp_path / "01_good") == [RUN]


def test_two_sweeps_that_fail_at_once_both_say_why(task, ran, tmp_path, monkeypatch):
    """Between removing the other's failed run and putting ours there, the other puts its own there again."""
    ran["error"] = "RuntimeError: the reason"
    failed, real, times = tmp_path / "01_good" / f"{RUN}-failed", os.rename, []

    def rename(source, target):
        if Path(target) == failed and len(times) < 2:
            times.append(target)
            failed.mkdir()
            (failed / "01_good.ipynb").write_text("the other's")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert execute(task, tmp_path) == "RuntimeError: the reason"
    assert len(times) == 2
    assert (failed / "01_good.ipynb").read_text(encoding="utf-8") == "RuntimeError: the reason"
    assert os.listdir(tmp_path / "01_good") == [failed.name]


def test_a_second_sweep_waits_for_the_first(tmp_path):
    program = (f"import sys; sys.path.insert(0, {str(CI)!r})\nimport run_store, pathlib\n"
               f"with run_store.alone(pathlib.Path({str(tmp_path)!r}), lambda text: print(text, flush=True)):\n"
               "    print('mine', flush=True)")
    with run_store.alone(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline().startswith(f"another sweep is at work in {tmp_path}: waiting for it")
        assert other.poll() is None
    assert other.communicate(timeout=100)[0] == "mine\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", ["fcntl", "flock"])
def test_a_place_without_locks_is_no_hindrance(tmp_path, monkeypatch, missing):
    import fcntl

    def no_locks(*given):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if missing == "fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    with run_store.alone(tmp_path) as nothing:
        assert nothing is None


def test_what_killed_runs_of_this_machine_left_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, place = socket.gethostname(), tmp_path / "01_good"
    dead, living = f".{RUN}.{host}-{gone.pid}-abcdef", f".{RUN}.{host}-{os.getpid()}-abcdef"
    others, damaged = f".{RUN}.elsewhere-{gone.pid}-abcdef", f".{RUN}.damaged-abcdef"
    for name in (dead, living, others, damaged, RUN):
        (place / name).mkdir(parents=True)
    run_store.clean(tmp_path)
    assert sorted(os.listdir(place)) == sorted([living, others, damaged, RUN])
    shutil.rmtree(place)
    run_store.clean(tmp_path)  # nothing there is nothing to do
