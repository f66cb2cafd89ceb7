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
def local(monkeypatch):
    """A cluster in this process, so that what is patched here is patched on its workers."""
    import distributed

    def start(workers=1, threads=1):
        found = distributed.LocalCluster(n_workers=workers, threads_per_worker=threads, processes=False,
                                         dashboard_address=None, silence_logs=50)
        started.append(found)
        return found

    monkeypatch.setattr(executors, "ANSWER_WITHIN", 120)  # a busy machine is no silent scheduler
    started = []
    yield start
    for one in started:
        one.close()


@pytest.fixture
def connect():
    """Connections, which are closed before the clusters that they lead to (so `local` comes first)."""

    def start(address):
        made.append(executors.Connection(address))
        return made[-1]

    made = []
    yield start
    for one in made:
        one.close()
        one._thread.join(60)


@pytest.fixture(autouse=True)
def every_client_is_closed():
    """One that is collected as garbage while another cluster starts would wait for ever for a lock of Dask's."""
    yield
    from distributed import Client
    assert [client.status for client in Client._instances if client.status != "closed"] == []


def test_a_scheduler_that_does_not_answer_is_said(connect, monkeypatch):
    import distributed  # noqa: F401  its import is not what is timed here
    monkeypatch.setattr(executors, "ANSWER_WITHIN", 0.2)
    with socket.socket() as silent:  # listens and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        with pytest.raises(Refused, match=r"does not answer within 0\.2 s: is it running"):
            connect(f"tcp://127.0.0.1:{silent.getsockname()[1]}").client()
        assert time.monotonic() - begin < 25  # Dask alone takes 30 s; the rest is for a busy machine


def test_an_address_that_is_none_is_said(connect):
    with pytest.raises(Refused, match="does its address begin with tcp://"):
        connect("nonsense").client()


def test_a_client_that_nobody_asked_for_is_closed(local, connect, monkeypatch):
    """Found before the connection is closed, or while it is."""
    import distributed
    made, real, hold = [], distributed.Client, threading.Event()

    def late(*given, **more):
        made.append(real(*given, **more))
        assert hold.wait(60)
        return made[-1]

    monkeypatch.setattr(distributed, "Client", late)
    address = local().scheduler_address
    hold.set()
    early = connect(address)
    early._thread.join(60)
    assert made[0].status == "running"
    early.close()
    hold.clear()
    second = connect(address)
    second.close()
    hold.set()
    second._thread.join(60)
    assert [client.status for client in made] == ["closed", "closed"]


def test_a_cluster_that_exists_is_used(tmp_path, local, connect, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 6)
    task = tasks(tmp_path)[0]
    client = connect(local(workers=2).scheduler_address).client()
    assert list(executors.execute([task], tmp_path, 64, client)) == [(task, "")]
    about = json.loads((task.folder(tmp_path) / "run.json").read_text(encoding="utf-8"))
    # Its share of the cores of the worker's machine, whatever the machine is that submits.
    assert (about["run"], about["threads"]) == (task.run, 3)


def test_workers_that_share_a_working_folder_are_refused(local, connect):
    connection = connect(local(threads=2).scheduler_address)
    with pytest.raises(Refused, match="start them with one thread each"):
        connection.client()


def test_a_worker_that_comes_later_and_shares_its_folder_refuses_the_run(tmp_path, local, connect, monkeypatch, capsys):
    """And a scheduler without workers is waited for, with a sentence."""
    found = local(workers=0, threads=2)
    client = connect(found.scheduler_address).client()
    assert "has no workers yet: waiting for workers" in capsys.readouterr().out
    monkeypatch.setattr(run_store, "execute_one", lambda *given: "it ran")
    found.scale(1)
    task = tasks(tmp_path)[0]
    assert list(executors.execute([task], tmp_path, 1, client)) == [(task, executors._TOO_MANY_THREADS)]


@pytest.mark.parametrize(("kind", "at_once"), [("cuda", 1), ("cpu", 3)])
def test_a_gpu_is_shared_out_one_run_at_a_time(tmp_path, local, connect, monkeypatch, kind, at_once):
    monkeypatch.setattr(device, "resolve", lambda name: torch.device(kind, 0) if kind == "cuda" else torch.device(kind))
    running, most, lock = [], [], threading.Lock()

    def execute(path, given, folder, threads, caller):
        with lock:
            running.append(given["seed"])
            most.append(len(running))
        # On a CPU until all three have come, however long that takes; on a GPU long enough for another to break in.
        deadline = time.monotonic() + (0.3 if kind == "cuda" else 120)
        while time.monotonic() < deadline and max(most) < 3:
            time.sleep(0.01)
        with lock:
            running.remove(given["seed"])
        raise OSError("enough")

    monkeypatch.setattr(run_store.runner, "execute_one", execute)
    client = connect(local(workers=3).scheduler_address).client()
    assert len(list(executors.execute(tasks(tmp_path, 3), tmp_path, 1, client))) == 3
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
