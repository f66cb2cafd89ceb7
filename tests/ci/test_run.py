"""The main job, on small notebooks made for the purpose."""

import argparse
import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import build_site
import commands
import nbformat
import pytest
import report_page
import run as command
import runner
import student
import sweep
from tiny import write

CI = Path(__file__).resolve().parent.parent.parent / "ci"


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "note books"
    write(folder, "01_good", plain=True)
    write(folder, "02_bad", "raise RuntimeError('the reason')", plain=True)
    return folder


@pytest.fixture
def here(monkeypatch):
    """Runs in this process: no second import of everything."""
    monkeypatch.setattr(runner, "execute", lambda paths, given, folder, jobs: [
        runner.execute_one(path, given[path.stem], folder / path.stem, 1, os.getcwd()) for path in paths])


def chosen(folder, **given):
    return argparse.Namespace(**{"notebooks": [], "p": [], "file": None, "output": None, "jobs": 1, "here": True,
                                 "connection": None, "list": False, "lab": False, "student": None, "site": False,
                                 "sweep": [], "scheduler": None, "force": False, "source": str(folder), **given})


def test_one_failing_notebook_does_not_stop_the_others(notebooks, tmp_path):
    """Through the command itself, with the notebooks' processes: one fails, one is killed, one takes its module from
    the caller's folder."""
    write(notebooks, "03_killed", "import signal; os.kill(os.getppid(), signal.SIGKILL)", plain=True)
    write(notebooks, "04_mine", "import importlib\n"
          "scale = importlib.import_module(name.split(':')[0]).SCALE if ':' in name else scale", plain=True)
    (tmp_path / "mine.py").write_text("SCALE = 4")
    (tmp_path / "p.yaml").write_text("all: {scale: 1}\n04: {name: 'mine:SCALE'}")
    done = subprocess.run(
        [sys.executable, str(CI / "run.py"), "--here", "--notebooks-in", "note books", "--output", "new/out",
         "--jobs", "2", "--file", "p.yaml"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "TQDM_DISABLE": "1"})
    printed = done.stdout.rstrip().splitlines()
    assert done.returncode == 1, done.stderr
    out = tmp_path / "new/out"
    assert printed == [
        f"2 of 4 notebooks ran; {out / 'index.html'}", "FAILED 02_bad: RuntimeError: the reason",
        "FAILED 03_killed: its process ended with SIGKILL before the notebook did: was it killed, or short of memory?"]
    record = json.loads((out / "01_good/01_good.json").read_text(encoding="utf-8"))
    assert record["results"] == {"answer": 21.0}
    assert record["parameters"]["scale"] == 1.0
    assert json.loads((out / "04_mine/04_mine.json").read_text(encoding="utf-8"))["results"] == {"answer": 84.0}
    assert (out / "02_bad/02_bad.ipynb").is_file()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Title of 01_good" in page
    assert "01_good/01_good.ipynb" in page
    assert "failed: RuntimeError: the reason" in page
    assert "failed: its process ended with SIGKILL" in page
    assert "<td data-value='answer'>answer</td><td data-value='21.0'>21</td>" in page


def test_running_one_notebook_keeps_the_cards_of_the_others(notebooks, tmp_path, here, capsys):
    out = tmp_path / "out"
    assert commands.main(chosen(notebooks, output=str(out))) == 1
    (out / "07_damaged").mkdir()
    (out / "07_damaged/run.json").write_text("{")
    assert commands.main(chosen(notebooks, output=str(out), notebooks=["01"], p=[["scale", "3"]])) == 0
    assert "07_damaged has no card until it runs again, for its files cannot be used: " in capsys.readouterr().err
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<td data-value='answer'>answer</td><td data-value='63.0'>63</td>" in page
    assert "an earlier run: failed: RuntimeError: the reason" in page
    assert page.count("<section>") == 2


def test_a_run_that_fails_leaves_no_numbers_of_an_earlier_one(notebooks, tmp_path, here):
    out = tmp_path / "out"
    assert commands.main(chosen(notebooks, output=str(out), notebooks=["01"])) == 0
    assert (out / "01_good/01_good.json").is_file()
    write(notebooks, "01_good", "raise RuntimeError('now')", plain=True)
    assert commands.main(chosen(notebooks, output=str(out), notebooks=["01"])) == 1
    assert not (out / "01_good/01_good.json").exists()


def test_a_record_that_is_not_one_is_a_failure(notebooks, tmp_path, here, capsys):
    write(notebooks, "01_good", "class json: dumps = staticmethod(lambda record: '{}')", plain=True)
    assert commands.main(chosen(notebooks, output=str(tmp_path / "out"), notebooks=["01"])) == 1
    assert ("FAILED 01_good: it wrote a record, 01_good.json, that cannot be used: it has no notebook and no "
            "parameters and no results") in capsys.readouterr().out


def test_a_full_disk_is_said(notebooks, tmp_path, here, capsys, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(report_page, "write", full)
    assert commands.main(chosen(notebooks, output=str(tmp_path / "out"), notebooks=["01"])) == 1
    assert "the page could not be written: No space left on device" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "sentence"), [
    ({"notebooks": ["7"]}, "no notebook begins with '7'; there are: 01_good, 02_bad"),
    ({"p": [["scales", "1"]]}, "01_good has no parameter 'scales'; it has: seed, device, output_dir, scale, name"),
    ({"p": [["seed", "a"]]}, "parameter seed = 'a' is of type str, but its default 0 of type int"),
    ({"p": [["seed", "[1"]]}, "-p seed '[1': the value cannot be read as YAML"),
    ({"file": "nothing.yaml"}, "nothing.yaml cannot be read as YAML"),
    ({"source": "nowhere"}, "nowhere: their names begin with two digits, such as 01_topic.ipynb"),
])
def test_what_cannot_be_run_is_refused_before_anything_runs(notebooks, tmp_path, given, sentence, capsys):
    assert commands.main(chosen(notebooks, **{"output": str(tmp_path / "out"), **given})) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(notebooks, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert commands.main(chosen(notebooks, output=str(tmp_path / "file"))) == 2
    assert "cannot be written: File exists. Name another with --output" in capsys.readouterr().err


def test_an_interruption_is_a_sentence(notebooks, tmp_path, capsys, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", interrupt)
    assert commands.main(chosen(notebooks, output=str(tmp_path / "out"))) == 130
    assert "Interrupted: finished runs are kept." in capsys.readouterr().err


def test_the_list_has_parameters_defaults_and_help(notebooks, capsys):
    assert commands.job(chosen(notebooks, list=True)) == 0
    printed = capsys.readouterr().out
    assert "01_good   Title of 01_good" in printed
    assert "scale: float = 2.0   of the answer" in printed


def test_the_command_runs_from_any_folder(tmp_path):
    done = subprocess.run([sys.executable, str(CI / "run.py"), "--here", "--list"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed: int = 0" in done.stdout


def test_no_job_at_a_time_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.arguments(["--jobs", "0"])
    assert "at least one notebook has to run at a time" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1e-3", "-.5", "-[1]", "-word", "- 1"])
def test_a_value_may_begin_with_a_minus(value):
    asked = command.arguments(["01", "-p", "scale", value, "--jobs", "2", "-p", "seed", "3"])
    assert (asked.notebooks, asked.p, asked.jobs) == (["01"], [["scale", value], ["seed", "3"]], 2)


@pytest.mark.parametrize("given", [["-p", "scale"], ["-p", "scale", "--jobs", "2"], ["-p", "scale", "-p", "seed", "1"]])
def test_a_parameter_without_its_value_is_refused(given, capsys):
    with pytest.raises(SystemExit):
        command.arguments(given)
    assert "argument -p: expected 2 arguments" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--notebooks-in", "--file"])
def test_a_place_without_a_name_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        command.arguments([option, ""])
    assert f"{option} '': it names nothing; leave the option out for the default" in capsys.readouterr().err


@pytest.mark.parametrize(("user", "told"), [(0, True), (1000, False)])
def test_jupyter_is_told_that_root_may_start_it(user, told, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("--allow-root" in command.lab()) == told
    assert command.lab()[-1].endswith("notebooks")


def test_the_card_of_a_failed_notebook_has_the_notebooks_title(notebooks, tmp_path, here, capsys):
    """papermill puts a cell of HTML before the others; the error's text is cut where nobody would read on."""
    write(notebooks, "02_bad", "raise RuntimeError('long ' * 10**6 + ' the end')", plain=True)
    assert commands.main(chosen(notebooks, output=str(tmp_path / "out"), notebooks=["02"])) == 1
    printed, page = capsys.readouterr().out, (tmp_path / "out/index.html").read_text()
    assert "<h2>Title of 02_bad</h2>" in page
    assert "papermill" not in page
    for text in (printed, page):
        assert "RuntimeError: long long" in text
        assert "characters are left out" in text
        assert "long  the end" in text
        assert len(text) < 5000
    assert commands.main(chosen(notebooks, output=str(tmp_path / "out"), notebooks=["01"])) == 0  # reads it again


@pytest.mark.parametrize("option", [["--force"], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_options_of_a_sweep_go_with_a_sweep(option, capsys):
    with pytest.raises(SystemExit):
        command.arguments(option)
    assert "go with --sweep" in capsys.readouterr().err


def test_kernels_started_at_once_share_no_socket(tmp_path):
    first, second = (runner._transport(tmp_path / name)["KernelManager"] for name in "ab")
    assert first["transport"] == second["transport"] == "ipc"
    assert first["ip"] != second["ip"]


def test_a_folder_too_long_for_a_socket_leaves_ports(tmp_path):
    assert "KernelManager" not in runner._transport(tmp_path / ("x" * 100))


def test_sockets_of_dead_runs_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"kernel-{gone.pid}-ab_1", f"kernel-{os.getpid()}-cd", "kernel-of-others"):
        (tmp_path / name).mkdir()
    runner.clean_sockets()
    assert {path.name for path in tmp_path.iterdir()} == {f"kernel-{os.getpid()}-cd", "kernel-of-others"}


def test_the_environment_is_as_it_was_after_a_run(notebooks, tmp_path):
    before = dict(os.environ)
    outcome = runner.execute_one(notebooks / "01_good.ipynb", {"name": "a:b"}, tmp_path / "out", 1, str(tmp_path))
    assert outcome.error == ""
    assert dict(os.environ) == before


README = (CI.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python3 ci/run\.py(.*?)(?:\s{2,}.*)?$", README, re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_would_run(line, tmp_path, monkeypatch):
    """Their notebooks, parameters and axes exist and have those types."""
    monkeypatch.chdir(CI.parent)
    monkeypatch.setattr(runner, "execute", lambda paths, *more: started.extend(paths) or [])
    monkeypatch.setattr(sweep, "job", lambda chosen, paths, given, output: started.extend(
        sweep.tasks(paths, given, chosen.sweep)))
    monkeypatch.setattr(report_page, "write", lambda *given: tmp_path)
    monkeypatch.setattr(report_page, "listing", lambda paths: started.extend(paths))
    monkeypatch.setattr(student, "write", lambda paths, folder: started.extend(paths) or started)
    monkeypatch.setattr(build_site, "build", lambda paths, output: started.extend(paths))
    started = []
    asked = command.arguments(shlex.split(line, comments=True))
    if not asked.lab:
        asked.output = str(tmp_path)
        commands.job(asked)
        assert started


def test_the_readme_has_commands():
    assert len(COMMANDS) > 5
    assert any("--sweep" in line for line in COMMANDS)


def test_the_page_of_runs_on_a_phone_with_its_captions(tmp_path, chromium):
    """No wider than the screen, light and dark; a figure's caption is its alternative text; results are sorted."""
    pixels = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    place = tmp_path / "01_case"
    place.mkdir()
    figure = nbformat.v4.new_code_cell("figure()", metadata={"tags": ["main-figure"]}, outputs=[
        nbformat.v4.new_output("display_data", data={"image/png": pixels})])
    cells = [nbformat.v4.new_markdown_cell("# A case"), figure,
             nbformat.v4.new_markdown_cell("**Figure 1.** What *it* shows.\n\nMore.")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place / "01_case.ipynb")
    results = {"b" * 60: 2.0, "a": 10.0}
    outcome = runner.Outcome("01_case", place, 1.0, "", {"results": results})
    html = report_page.write([outcome], tmp_path)
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("img").get_attribute("alt") == "Figure 1. What it shows."
    page.locator("th button").first.click()
    assert page.locator("tbody tr td:first-child").first.inner_text() == "a"
    page.close()
