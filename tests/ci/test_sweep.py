"""Sweeps: the product of parameters, resumed whatever happened to the run before."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import run as command_line
import run_store
import sweep
import sweep_page
from environment import Refused
from tiny import write
from waiting import LONG, alive, until

from smpcore.experiments import results

CI = Path(__file__).resolve().parent.parent.parent / "ci"

KNOWN = {"seed": {"default": 0}, "scale": {"default": 2.0}, "name": {"default": "a"}, "box": {"default": [1]}}


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "note books"
    write(folder, "01_good", plain=True)
    return folder


def command(notebooks, output, *more):
    return subprocess.Popen(
        [sys.executable, str(CI / "run.py"), "--here", "--notebooks-in", str(notebooks), "--output", str(output),
         *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "TQDM_DISABLE": "1"})


def run(notebooks, output, *more):
    process = command(notebooks, output, *more)
    printed, _ = process.communicate(timeout=LONG)
    return process.returncode, printed


def job(notebooks, output, *more):
    """The same in this process; no second import of everything."""
    import commands
    return commands.main(command_line.arguments(["--notebooks-in", str(notebooks), "--output", str(output), *more]))


def runs(output, notebook="01_good"):
    return {path.name: path.stat().st_mtime_ns for path in (output / notebook).glob("[0-9a-f]*")
            if not path.name.endswith("-failed")}


@pytest.mark.parametrize(("text", "expected"), [
    ("seed=0:3", ("seed", [0, 1, 2])),
    ("seed=0:10:5", ("seed", [0, 5])),
    ("seed=3:0:-1", ("seed", [3, 2, 1])),
    ("seed = 010,2", ("seed", [10, 2])),
    ("scale=0.25,0.5,1,1e-3", ("scale", [0.25, 0.5, 1, 0.001])),
    ("name=rbf,1,yes", ("name", ["rbf", "1", "yes"])),
    ("name=0:3", ("name", ["0:3"])),
    ("name=mine:build", ("name", ["mine:build"])),
    ("box=[1, 2],[3, 4]", ("box", [[1, 2], [3, 4]])),
])
def test_an_axis_is_a_range_or_a_list(text, expected):
    assert sweep.axis(text, KNOWN) == expected


@pytest.mark.parametrize(("text", "sentence"), [
    ("seed", "write name=first:end"),
    ("seed=", "write name=first:end"),
    ("2x=1", "write name=first:end"),
    ("seed=0:4:0", "in whole numbers, its step not 0"),
    ("seed=4:4", "this range is empty"),
    ("seed=0:1000000000", "this range has 1000000000 values"),
    ("scale=1,,2", "its values cannot be read as YAML"),
    ("scale=[1", "its values cannot be read as YAML"),
    ("name=a,''", "a value is missing between two commas"),
    ("output_dir=a,b", "output_dir is no axis"),
])
def test_a_malformed_axis_is_refused(text, sentence):
    with pytest.raises(Refused, match=sentence):
        sweep.axis(text, KNOWN)


def tasks(notebooks, *axes, elsewhere=False, **given):
    return sweep.tasks([notebooks / "01_good.ipynb"], {"01_good": given}, list(axes), elsewhere)


@pytest.mark.parametrize(("axes", "sentence"), [
    (["scales=1,2"], "01_good has no parameter 'scales'; it has: seed, device"),
    (["seed=a,b"], "parameter seed = 'a' is of type str"),
    (["seed=2025-01-02"], "parameter seed = '2025-01-02' is of type str"),
    ([f"scale=1{'0' * 400}"], "parameter scale is not made of finite numbers"),
    (["seed=1", "seed=2"], "names seed twice"),
    (["seed=0:100000", "scale=" + ",".join(map(str, range(20)))], "a product of 2,000,000 runs, more than 100,000"),
])
def test_a_sweep_that_cannot_be_run_is_refused_by_name(notebooks, tmp_path, axes, sentence, capsys):
    with pytest.raises(Refused, match=sentence):
        tasks(notebooks, *axes)
    assert job(notebooks, tmp_path / "out", "--sweep", *axes) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_for_the_results_is_not_for_sweeps(notebooks):
    with pytest.raises(Refused, match="output_dir is not for sweeps, whose results go beside the notebooks"):
        tasks(notebooks, "seed=0", output_dir="elsewhere")


def names(notebooks, *axes, **given):
    return {task.run for task in tasks(notebooks, *(axes or ["seed=0"]), **given)}


def test_a_run_is_named_by_what_decides_its_result(notebooks, monkeypatch):
    first = names(notebooks)
    assert names(notebooks) == first
    assert names(notebooks, output_dir="") == first
    assert names(notebooks, device="cpu") == first
    assert names(notebooks, "seed=1") != first
    assert names(notebooks, scale=3.0) != first
    with monkeypatch.context() as patched:
        patched.setattr("smpcore.__version__", "9.9")
        assert names(notebooks) != first
    write(notebooks, "01_good", "x = 1", plain=True)
    assert names(notebooks) != first


def test_a_device_is_what_it_stands_for_where_the_runs_happen(notebooks, monkeypatch):
    from smpcore import device
    monkeypatch.setattr(device, "describe", lambda found: "the GPU of this machine")
    here, there = ({kind: names(notebooks, device=kind, elsewhere=elsewhere) for kind in ("auto", "cpu")}
                   for elsewhere in (False, True))
    assert here["auto"] == here["cpu"]  # both are called the same
    assert there["auto"] != there["cpu"]
    assert there["auto"] != here["auto"]


def test_a_run_is_named_by_a_hash_of_everything_that_makes_it(notebooks):
    """Spelled out, for an earlier sweep is resumed by these names."""
    import hashlib

    import smpcore
    cells = [cell["source"] for cell in json.loads((notebooks / "01_good.ipynb").read_text())["cells"]]
    cells = ["".join(source) for source in cells]
    content = [cells, {"seed": 3, "device": "cpu", "scale": 2.0, "name": "a"}, smpcore.__version__]
    assert names(notebooks, "seed=3") == {hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}


def test_a_value_given_twice_runs_once(notebooks):
    assert len(names(notebooks, "scale=1,1.0,1e0,2")) == 2


def test_a_sweep_runs_the_product_and_collects_it(notebooks, tmp_path, capsys):
    output = tmp_path / "out"
    write(notebooks, "02_other", plain=True)
    assert job(notebooks, output, "01", "--sweep", "seed=0:2", "scale=1,2") == 0
    assert "4 of 4 runs finished" in capsys.readouterr().out
    frame = results.load(output)
    assert sorted(frame["answer"]) == [21, 22, 42, 43]
    assert list(frame.columns[:4]) == ["notebook", "seed", "scale", "name"]
    assert (frame["seconds"] > frame["overhead"]).all()
    assert (frame["overhead"] > 0).all()
    assert (frame["threads"] >= 1).all()
    assert frame.attrs["meanings"]["scale"] == "of the answer"
    assert frame.attrs["kinds"]["answer"] == "result"
    before = runs(output)
    assert job(notebooks, output, "01", "--sweep", "seed=0:2", "scale=1,2") == 0
    assert "4 of 4 runs are there already" in capsys.readouterr().out
    assert runs(output) == before
    assert job(notebooks, output, "01", "--sweep", "seed=0", "scale=1", "--force") == 0
    assert len([name for name, when in runs(output).items() if before[name] != when]) == 1
    # Another sweep into the same folder: the table has everything that is there.
    assert job(notebooks, output, "01", "--sweep", "seed=7") == 0
    assert sorted(results.load(output)["answer"]) == [21, 22, 42, 43, 49]
    assert len((output / "table.csv").read_text(encoding="utf-8").splitlines()) == 6
    # Another edition of the notebook as well, and that is said.
    assert "other editions" not in (output / "index.html").read_text(encoding="utf-8")
    write(notebooks, "01_good", "x = 1", plain=True)
    assert job(notebooks, output, "01", "--sweep", "seed=7") == 0
    assert "5 runs come from other editions of a notebook" in (output / "index.html").read_text(encoding="utf-8")


def test_a_failed_run_keeps_its_notebook_and_the_others_go_on(notebooks, tmp_path, capsys):
    write(notebooks, "01_good", "if seed == 1: raise RuntimeError('seed one')", plain=True)
    assert job(notebooks, tmp_path / "out", "--sweep", "seed=0:3") == 1
    printed = capsys.readouterr().out
    assert "2 of 3 runs finished" in printed
    assert "RuntimeError: seed one" in printed.splitlines()[-1]
    kept = list((tmp_path / "out/01_good").glob("*-failed/01_good.ipynb"))
    assert len(kept) == 1
    assert "seed one" in kept[0].read_text(encoding="utf-8")
    assert "RuntimeError: seed one" in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_a_sweep_whose_parent_is_killed_is_resumed(notebooks, tmp_path):
    """Twelve runs, SIGKILL half-way: none repeated, none lost, the table complete, nothing left over.

    The second half waits for a file, so that half-way is half-way on any machine.
    """
    output, go_on = tmp_path / "out", tmp_path / "go on"
    write(notebooks, "01_good", f"import time\nwhile seed >= 6 and not os.path.exists({str(go_on)!r}): time.sleep(0.1)",
          plain=True)
    first = command(notebooks, output, "--sweep", "seed=0:12", "--jobs", "2")
    until(lambda: len(runs(output)) == 6, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not alive(first.pid))  # workers that lost their parent end
    kept = runs(output)
    assert len(kept) == 6
    go_on.touch()
    code, printed = run(notebooks, output, "--sweep", "seed=0:12", "--jobs", "2")
    assert code == 0, printed
    assert "6 of 12 runs are there already" in printed
    after = runs(output)
    assert len(after) == 12
    assert {name: after[name] for name in kept} == kept
    assert sorted(results.load(output)["answer"]) == [42 + seed for seed in range(12)]
    assert len((output / "table.csv").read_text(encoding="utf-8").splitlines()) == 13
    assert not [path for path in (output / "01_good").iterdir() if path.name.startswith(".")]


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
    started = log.read_text(encoding="utf-8").split()
    assert started.count("1") == 2
    assert len(started) <= 6  # at most the killed worker's own runs began again
    assert sorted(results.load(tmp_path / "out")["answer"]) == [42, 43, 44, 45]


def test_two_sweeps_into_one_folder_do_each_run_once(notebooks, tmp_path):
    log = tmp_path / "started"
    write(notebooks, "01_good", f"open({str(log)!r}, 'a').write('x')", plain=True)
    both = [command(notebooks, tmp_path / "out", "--sweep", "seed=0:3") for _ in range(2)]
    for process in both:
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode == 0, printed
    assert sorted(results.load(tmp_path / "out")["answer"]) == [42, 43, 44]
    assert log.read_text() == "xxx"
    assert not [path for path in (tmp_path / "out/01_good").iterdir() if path.name.startswith(".")]


def test_a_folder_that_cannot_be_written_is_refused(notebooks, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert job(notebooks, tmp_path / "file", "--sweep", "seed=0") == 2
    assert "cannot be written: File exists. Name another with --output" in capsys.readouterr().err


def test_a_disk_that_is_full_when_the_table_is_written_is_said(notebooks, tmp_path, capsys, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(sweep_page, "collect", full)
        assert job(notebooks, output, "--sweep", "seed=0") == 1
        assert "the table could not be written: No space left on device. The runs are kept" in capsys.readouterr().out
    real = os.replace
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda a, b: full() if str(b).endswith("table.csv") else real(a, b))
        assert job(notebooks, output, "--sweep", "seed=0") == 1
    assert {path.name for path in output.iterdir()} == {"01_good"}  # no half of a table
    assert job(notebooks, output, "--sweep", "seed=0") == 0
    assert "1 of 1 runs are there already" in capsys.readouterr().out


def test_a_damaged_result_of_a_resumed_sweep_is_named_and_run_again(notebooks, tmp_path, capsys):
    output = tmp_path / "out"
    assert job(notebooks, output, "--sweep", "seed=0:2") == 0
    record = next(output.glob("01_good/*/01_good.json"))
    record.write_text("{}")
    assert job(notebooks, output, "--sweep", "seed=0:2") == 0
    printed = capsys.readouterr().out
    assert f"{record} is damaged (it has no notebook and no parameters and no results): set aside as ." in printed
    assert "1 of 2 runs are there already" in printed
    assert sorted(results.load(output)["answer"]) == [42, 43]
    assert json.loads(record.read_text(encoding="utf-8"))["notebook"] == "01_good"


def test_an_interrupted_sweep_writes_its_table(notebooks, tmp_path, monkeypatch, capsys):
    real = run_store.execute_one

    def interrupted(task, *given):
        if task.given["seed"]:
            raise KeyboardInterrupt
        return real(task, *given)

    monkeypatch.setattr(run_store, "execute_one", interrupted)
    assert job(notebooks, tmp_path / "out", "--sweep", "seed=0:2") == 130
    assert "Interrupted: finished runs are kept." in capsys.readouterr().err
    assert len((tmp_path / "out/table.csv").read_text(encoding="utf-8").splitlines()) == 2
