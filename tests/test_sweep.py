"""Sweeps: the product of parameters, resumed whatever happened to the run before."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import write

CI = Path(__file__).resolve().parent.parent / "ci"
sys.path.insert(0, str(CI))

import runner  # noqa: E402
import sweep  # noqa: E402

from smpcore import results  # noqa: E402


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "note books"
    write(folder, "01_good")
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)
    return folder


def command(notebooks, output, *more, **settings):
    return subprocess.Popen(
        [sys.executable, str(CI / "run.py"), "--here", "--notebooks-in", str(notebooks), "--output", str(output),
         *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "TQDM_DISABLE": "1", **settings})


def run(notebooks, output, *more, **settings):
    process = command(notebooks, output, *more, **settings)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def runs(output, notebook="01_good"):
    return {path.name: path.stat().st_mtime_ns for path in (output / notebook).glob("[0-9a-f]*")
            if not path.name.endswith("-failed")}


@pytest.mark.parametrize(("text", "expected"), [
    ("seed=0:3", ("seed", [0, 1, 2])),
    ("seed=0:10:5", ("seed", [0, 5])),
    ("scale=0.25,0.5,1", ("scale", [0.25, 0.5, 1])),
    ("name=rbf", ("name", ["rbf"])),
    ("box=[1, 2],[3, 4]", ("box", [[1, 2], [3, 4]])),
])
def test_an_axis_is_a_range_or_a_list(text, expected):
    assert sweep.axis(text) == expected


@pytest.mark.parametrize(("text", "sentence"), [
    ("seed", "write name=first:end"),
    ("seed=", "write name=first:end"),
    ("2x=1", "write name=first:end"),
    ("seed=a:b", "in whole numbers"),
    ("seed=0:4:0", "in whole numbers"),
    ("seed=4:4", "this range is empty"),
    ("scale=1,,2", "cannot be read as YAML|a value is missing"),
    ("scale=[1", "cannot be read as YAML"),
])
def test_a_malformed_axis_is_refused(text, sentence):
    with pytest.raises(runner.Refused, match=sentence):
        sweep.axis(text)


@pytest.mark.parametrize(("axes", "sentence"), [
    (["scales=1,2"], "01_good has no parameter 'scales'; it has: seed, device"),
    (["seed=a,b"], "parameter seed = 'a' is a str"),
    (["seed=1", "seed=2"], "names seed twice"),
])
def test_a_sweep_that_cannot_be_run_is_refused_by_name(notebooks, axes, sentence):
    with pytest.raises(runner.Refused, match=sentence):
        sweep.tasks(["01_good"], {"01_good": {}}, axes)


def names(notebooks, axes=("seed=0",), **given):
    return {task.run for task in sweep.tasks(["01_good"], {"01_good": given}, list(axes))}


def test_a_run_is_named_by_what_decides_its_result(notebooks, monkeypatch):
    first = names(notebooks)
    assert names(notebooks) == first
    assert names(notebooks, output_dir="elsewhere") == first
    assert names(notebooks, device="auto") == first  # where there is no GPU, auto is the CPU
    assert names(notebooks, axes=("seed=1",)) != first
    assert names(notebooks, scale=3.0) != first
    monkeypatch.setattr("smpcore.__version__", "9.9")
    assert names(notebooks) != first
    monkeypatch.undo()
    monkeypatch.setattr(runner, "NOTEBOOKS", notebooks)
    write(notebooks, "01_good", "x = 1")
    assert names(notebooks) != first


def test_a_value_given_twice_runs_once(notebooks):
    assert len(names(notebooks, axes=("scale=1,1.0,2",))) == 2


def test_a_sweep_runs_the_product_and_collects_it(notebooks, tmp_path):
    output = tmp_path / "out"
    write(notebooks, "02_other")
    code, printed = run(notebooks, output, "01", "--sweep", "seed=0:2", "scale=1,2")
    assert code == 0, printed
    assert "4 of 4 runs finished" in printed
    frame = results.load(output)
    assert sorted(frame["answer"]) == [21, 22, 42, 43]
    assert list(frame.columns[:4]) == ["notebook", "seed", "scale", "name"]
    assert (frame["seconds"] > 0).all()
    assert (frame["threads"] >= 1).all()
    assert frame.attrs["meanings"]["scale"] == "of the answer"
    assert frame.attrs["kinds"]["answer"] == "result"
    table = (output / "table.csv").read_text().splitlines()
    assert len(table) == 5
    assert table[0].startswith("notebook,seed,scale,name,answer,")
    page = (output / "index.html").read_text()
    assert "title='of the answer'>scale</th>" in page
    assert "<title>Sweep: out</title>" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    before = runs(output)
    code, printed = run(notebooks, output, "01", "--sweep", "seed=0:2", "scale=1,2")
    assert code == 0
    assert "4 of 4 runs are there already" in printed
    assert runs(output) == before
    code, printed = run(notebooks, output, "01", "--sweep", "seed=0", "scale=1", "--force")
    assert code == 0
    changed = [name for name, when in runs(output).items() if before[name] != when]
    assert len(changed) == 1


def test_a_failed_run_keeps_its_notebook_and_the_others_go_on(notebooks, tmp_path):
    write(notebooks, "01_good", "if seed == 1: raise RuntimeError('seed one')", plain=True)
    code, printed = run(notebooks, tmp_path / "out", "--sweep", "seed=0:3")
    assert code == 1
    assert "2 of 3 runs finished" in printed
    assert "RuntimeError: seed one" in printed.splitlines()[-1]
    kept = list((tmp_path / "out/01_good").glob("*-failed/01_good.ipynb"))
    assert len(kept) == 1
    assert "seed one" in kept[0].read_text()
    assert "RuntimeError: seed one" in (tmp_path / "out/index.html").read_text()
    write(notebooks, "01_good", "pass")


def test_a_sweep_whose_parent_is_killed_is_resumed(notebooks, tmp_path):
    """Twelve runs, SIGKILL half-way: none repeated, none lost, the table complete."""
    output = tmp_path / "out"
    log = tmp_path / "started"
    write(notebooks, "01_good", f"open({str(log)!r}, 'a').write(f'{{seed}}\\n')", plain=True)
    first = command(notebooks, output, "--sweep", "seed=0:12", "--jobs", "2")
    deadline = time.monotonic() + 200
    while len(runs(output)) < 5:
        assert time.monotonic() < deadline
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(8)  # workers that lost their parent end; a run that was under way may still finish
    kept = runs(output)
    assert 5 <= len(kept) < 12
    code, printed = run(notebooks, output, "--sweep", "seed=0:12", "--jobs", "2")
    assert code == 0, printed
    assert f"{len(kept)} of 12 runs are there already" in printed
    after = runs(output)
    assert len(after) == 12
    assert {name: after[name] for name in kept} == kept
    frame = results.load(output)
    assert sorted(frame["answer"]) == [42 + seed for seed in range(12)]
    assert len((output / "table.csv").read_text().splitlines()) == 13


def test_a_killed_worker_has_its_run_done_again(notebooks, tmp_path):
    """The notebook of seed 1 kills the worker that runs it, once."""
    marker, log = tmp_path / "killed", tmp_path / "started"
    write(notebooks, "01_good", "\n".join([
        "import os, pathlib, signal",
        f"open({str(log)!r}, 'a').write(f'{{seed}}\\n')",
        f"marker = pathlib.Path({str(marker)!r})",
        "if seed == 1 and not marker.exists():",
        "    marker.write_text('')",
        "    os.kill(os.getppid(), signal.SIGKILL)"]), plain=True)
    code, printed = run(notebooks, tmp_path / "out", "--sweep", "seed=0:4", "--jobs", "2")
    assert code == 0, printed
    assert marker.exists()
    started = log.read_text().split()
    assert started.count("1") == 2
    assert len(started) <= 6  # at most the killed worker's own runs began again
    assert sorted(results.load(tmp_path / "out")["answer"]) == [42, 43, 44, 45]


def test_two_sweeps_into_one_folder_do_not_hurt_each_other(notebooks, tmp_path):
    write(notebooks, "01_good", plain=True)
    both = [command(notebooks, tmp_path / "out", "--sweep", "seed=0:3") for _ in range(2)]
    for process in both:
        printed, _ = process.communicate(timeout=200)
        assert process.returncode == 0, printed
    assert sorted(results.load(tmp_path / "out")["answer"]) == [42, 43, 44]
    assert not [path for path in (tmp_path / "out/01_good").iterdir() if path.name.startswith(".")]


def one_task(notebooks):
    return sweep.tasks(["01_good"], {"01_good": {}}, ["seed=0"])[0]


@pytest.mark.parametrize("name", ["01_good.json", "run.json"])
def test_a_damaged_result_is_named_set_aside_and_run_again(notebooks, tmp_path, name):
    task = one_task(notebooks)
    folder = task.folder(tmp_path)
    folder.mkdir(parents=True)
    for each in ("01_good.json", "run.json"):
        (folder / each).write_text("{}")
    assert sweep.finished(task, tmp_path)
    (folder / name).write_text('{"results": ')
    said = []
    assert not sweep.finished(task, tmp_path, said.append)
    assert name in said[0]
    assert "is damaged" in said[0]
    assert "set aside as" in said[0]
    assert not folder.exists()
    assert list(folder.parent.glob(".*damaged*"))


def test_a_folder_that_cannot_be_written_is_refused(notebooks, tmp_path):
    (tmp_path / "file").write_text("")
    code, printed = run(notebooks, tmp_path / "file", "--sweep", "seed=0")
    assert code == 2
    assert "cannot be written" in printed
    assert "Name another with --output" in printed
    assert "Traceback" not in printed


def test_a_full_disk_is_said(notebooks, tmp_path, monkeypatch):
    def full(*given, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "execute_one", full)
    error = sweep.execute_one(one_task(notebooks), str(tmp_path), 1)
    assert error == "its results could not be kept: No space left on device"


def test_a_scheduler_that_does_not_answer_is_said_within_ten_seconds(notebooks, tmp_path):
    with socket.socket() as silent:  # listens and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(runner.Refused, match="does not answer within 5 s"):
            list(sweep.execute([one_task(notebooks)], tmp_path, 1, address))
        assert time.monotonic() - begin < 10


def test_a_cluster_that_exists_is_used(notebooks, tmp_path):
    import distributed
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None,
                                  silence_logs=50) as cluster:
        task = one_task(notebooks)
        assert list(sweep.execute([task], tmp_path, 1, cluster.scheduler_address)) == [(task, "")]
    assert json.loads((task.folder(tmp_path) / "run.json").read_text())["run"] == task.run


def test_threads_are_divided_among_the_jobs(notebooks, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sweep, "execute_one", lambda task, output, threads, force: seen.append(threads) or "")
    list(sweep.execute([one_task(notebooks)], tmp_path, 1, None))
    assert seen == [2]
    write(notebooks, "01_good", "assert os.environ['OMP_NUM_THREADS'] == '1'", plain=True)
    monkeypatch.undo()
    code, printed = run(notebooks, tmp_path / "out", "--sweep", "seed=0:2", "--jobs", "8")
    assert code == 0, printed


@pytest.mark.parametrize("option", [["--force"], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_options_of_a_sweep_go_with_a_sweep(notebooks, tmp_path, option):
    code, printed = run(notebooks, tmp_path / "out", *option)
    assert code == 2
    assert "go with --sweep" in printed
