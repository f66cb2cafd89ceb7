"""Where a sweep's runs happen: the threads they get, the GPU they share, a scheduler that is silent or odd."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import environment
import executors
import pytest
import run_store
import tiny
import torch
from environment import Refused

from smpcore import device

CI = Path(__file__).resolve().parent.parent.parent / "ci"


def tasks(folder, count=1, body=""):
    tiny.write(folder / "notebooks", "01_good", body, plain=True)
    return [run_store.Task(str(folder / "notebooks/01_good.ipynb"), {"seed": seed}, {}, f"{seed:012x}")
            for seed in range(count)]


@pytest.fixture
def local():
    """A cluster in this process, so that what is patched here is patched on its workers."""
    import distributed

    def start(workers=1, threads=1):
        found = distributed.LocalCluster(n_workers=workers, threads_per_worker=threads, processes=False,
                                         dashboard_address=None, silence_logs=50)
        started.append(found)
        return found

    started = []
    yield start
    for one in started:
        one.close()


def test_a_scheduler_that_does_not_answer_is_said_within_ten_seconds():
    import distributed  # noqa: F401  its import is not what is timed here
    with socket.socket() as silent:  # listens and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        connection = executors.Connection(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Refused, match="does not answer within 4 s: is it running"):
            connection.client()
        assert time.monotonic() - begin < 10


def test_an_address_that_is_none_is_said():
    with pytest.raises(Refused, match="does its address begin with tcp://"):
        executors.Connection("nonsense").client()


def test_a_cluster_that_exists_is_used(tmp_path, local, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 6)
    task = tasks(tmp_path)[0]
    connection = executors.Connection(local(workers=2).scheduler_address)
    assert list(executors.execute([task], tmp_path, 64, connection.client())) == [(task, "")]
    about = json.loads((task.folder(tmp_path) / "run.json").read_text())
    # Its share of the cores of the worker's machine, whatever the machine is that submits.
    assert (about["run"], about["threads"]) == (task.run, 3)


def test_workers_that_share_a_working_folder_are_refused(local):
    connection = executors.Connection(local(threads=2).scheduler_address)
    with pytest.raises(Refused, match="start them with one thread each"):
        connection.client()


def test_a_worker_that_comes_later_and_shares_its_folder_refuses_the_run(tmp_path, local, monkeypatch, capsys):
    """And a scheduler without workers is waited for, with a sentence."""
    found = local(workers=0, threads=2)
    connection = executors.Connection(found.scheduler_address)
    monkeypatch.setattr(run_store, "execute_one", lambda *given: "it ran")
    threading.Timer(1.0, found.scale, [1]).start()
    task = tasks(tmp_path)[0]
    assert list(executors.execute([task], tmp_path, 1, connection.client())) == [(task, executors._TOO_MANY_THREADS)]
    assert "has no workers yet: waiting for workers" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "at_once"), [("cuda", 1), ("cpu", 3)])
def test_a_gpu_is_shared_out_one_run_at_a_time(tmp_path, local, monkeypatch, kind, at_once):
    monkeypatch.setattr(device, "resolve", lambda name: torch.device(kind, 0) if kind == "cuda" else torch.device(kind))
    running, most, lock = [], [], threading.Lock()

    def execute(path, given, folder, threads, caller):
        with lock:
            running.append(given["seed"])
            most.append(len(running))
        deadline = time.monotonic() + (0.3 if kind == "cuda" else 20)
        while time.monotonic() < deadline and max(most) < 3:
            time.sleep(0.01)
        with lock:
            running.remove(given["seed"])
        raise OSError("enough")

    monkeypatch.setattr(run_store.runner, "execute_one", execute)
    connection = executors.Connection(local(workers=3).scheduler_address)
    assert len(list(executors.execute(tasks(tmp_path, 3), tmp_path, 1, connection.client()))) == 3
    assert len(most) == 3
    assert max(most) == at_once


def test_threads_are_divided_among_the_jobs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(environment, "cores", lambda: 5)
    monkeypatch.setattr(run_store, "execute_one", lambda task, output, threads, *more: seen.append(threads) or "")
    assert [error for _, error in executors.execute(tasks(tmp_path), tmp_path, 1, None)] == [""]
    assert seen == [5]


def test_eight_jobs_on_two_cores_have_a_thread_each(tmp_path, monkeypatch):
    """On workers that are processes of their own, which leave Ctrl-C to the parent."""
    monkeypatch.setattr(environment, "cores", lambda: 2)
    body = "import signal\nassert os.environ['OMP_NUM_THREADS'] == '1', os.environ['OMP_NUM_THREADS']"
    done = list(executors.execute(tasks(tmp_path, 2, body), tmp_path, 8, None))
    assert [error for _, error in done] == ["", ""]


def test_nothing_to_do_needs_no_cluster(tmp_path):
    assert list(executors.execute([], tmp_path, 2, None)) == []
    assert os.listdir(tmp_path) == []
