"""The main job, on small notebooks made for the purpose."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write

CI = Path(__file__).resolve().parent.parent / "ci"
sys.path.insert(0, str(CI))

import environment  # noqa: E402
import job  # noqa: E402
import run as command  # noqa: E402
import runner  # noqa: E402


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "note books"
    write(folder, "01_good")
    write(folder, "02_bad", "raise RuntimeError('the reason')")
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)
    return folder


def chosen(**given):
    return argparse.Namespace(**{"notebooks": [], "p": [], "file": None, "output": None, "jobs": 1, "here": True,
                                 "list": False, "lab": False, "sweep": [], "scheduler": None,
                                 "force": False, **given})


def test_one_failing_notebook_does_not_stop_the_others(notebooks, tmp_path, capsys, monkeypatch):
    # The pool's processes import the module afresh, so this runs where the patched folder is known.
    monkeypatch.setattr(runner, "execute", lambda names, given, folder, jobs: [
        runner.execute_one(name, given[name], str(folder / name), 1) for name in names])
    code = job.job(chosen(output=str(tmp_path / "out"), p=[["scale", "1"]]))
    printed = capsys.readouterr().out
    assert code == 1
    assert "1 of 2 notebooks ran" in printed
    assert printed.rstrip().splitlines()[-1] == "FAILED 02_bad: RuntimeError: the reason"
    record = json.loads((tmp_path / "out/01_good/01_good.json").read_text())
    assert record["results"] == {"answer": 21.0}
    assert record["parameters"]["scale"] == 1.0
    page = (tmp_path / "out/index.html").read_text()
    assert "Title of 01_good" in page
    assert "01_good/01_good.ipynb" in page
    assert "failed: RuntimeError: the reason" in page
    assert "<td>answer</td><td>21</td>" in page
    assert (tmp_path / "out/02_bad/02_bad.ipynb").is_file()


@pytest.mark.parametrize(("given", "sentence"), [
    ({"notebooks": ["7"]}, "no notebook begins with '7'; there are: 01_good, 02_bad"),
    ({"p": [["scales", "1"]]}, "01_good has no parameter 'scales'; it has: seed, device, output_dir, scale, name"),
    ({"p": [["seed", "a"]]}, "parameter seed = 'a' is a str, but its default 0 is a int"),
    ({"p": [["seed", "true"]]}, "parameter seed = True is a bool"),
    ({"p": [["name", "3"]]}, "parameter name = 3 is a int, but its default 'a' is a str"),
    ({"p": [["name", "[1"]]}, "-p name '[1': the value cannot be read as YAML"),
    ({"file": "nothing.yaml"}, "nothing.yaml cannot be read as YAML"),
])
def test_what_cannot_be_run_is_refused_before_anything_runs(notebooks, tmp_path, given, sentence):
    with pytest.raises(runner.Refused) as refused:
        job.job(chosen(output=str(tmp_path / "out"), **given))
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "sentence"), [
    ("'07': {seed: 1}", "no notebook 07; there are 01, 02"),
    ("[1, 2]", "its top keys are a notebook's number or 'all'"),
    ("'01': {sede: 1}", "01_good has no parameter 'sede'"),
    ("'01': {seed: 1.5}", "parameter seed = 1.5 is a float"),
    ("{", "cannot be read as YAML"),
])
def test_a_file_of_parameters_is_checked(notebooks, tmp_path, text, sentence):
    file = tmp_path / "parameters.yaml"
    file.write_text(text)
    with pytest.raises(runner.Refused) as refused:
        job.job(chosen(output=str(tmp_path / "out"), file=str(file)))
    assert sentence in str(refused.value)


def test_a_relative_path_is_the_callers(notebooks, tmp_path, monkeypatch):
    (tmp_path / "me.jpg").write_text("")
    monkeypatch.chdir(tmp_path)
    seen = {}
    monkeypatch.setattr(runner, "execute", lambda names, given, folder, jobs: seen.update(given) or [])
    assert job.job(chosen(output=str(tmp_path / "out"), p=[["name", "me.jpg"]])) == 0
    assert seen["01_good"]["name"] == str(tmp_path / "me.jpg")


def test_a_file_gives_common_and_own_parameters(notebooks, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("all: {seed: 3}\n'01': {scale: 5}\n")
    assert runner.from_file(file, ["01_good", "02_bad"]) == {
        "01_good": {"seed": 3, "scale": 5}, "02_bad": {"seed": 3}}


def test_the_list_has_parameters_defaults_and_help(notebooks, capsys):
    assert job.job(chosen(list=True)) == 0
    printed = capsys.readouterr().out
    assert "01_good   Title of 01_good" in printed
    assert "scale: float = 2.0   of the answer" in printed


def test_the_command_runs_from_any_folder(tmp_path):
    done = subprocess.run([sys.executable, str(CI / "run.py"), "--here", "--list"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed: int = 0" in done.stdout


def test_a_refusal_is_a_sentence_and_exit_code_2(tmp_path):
    done = subprocess.run([sys.executable, str(CI / "run.py"), "--here", "nothing"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert "no notebook begins with 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_job_at_a_time_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.arguments(["--jobs", "0"])
    assert "at least one notebook has to run at a time" in capsys.readouterr().err


def test_an_old_python_is_refused():
    with pytest.raises(environment.SetupError, match=r"Python 3\.9 is too old: run this with Python 3\.11 or later"):
        environment.need_python((3, 9, 1))


def project(tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


@pytest.fixture
def making(monkeypatch):
    """An environment that is made in no time, and says when."""
    said = []

    def make(root):
        python = environment.interpreter(root)
        python.parent.mkdir(parents=True)
        python.write_text("")

    monkeypatch.setattr(environment, "make", make)
    monkeypatch.setattr(environment, "install", lambda root, python: said.append("installed"))
    return said


def test_the_environment_is_made_once_and_again_when_requirements_change(tmp_path, making):
    root = project(tmp_path)
    said = making
    environment.ensure(root, said.append)
    assert said == ["Making the environment in .venv (once; some minutes, mostly to download torch) …", "installed"]
    said.clear()
    environment.ensure(root, said.append)
    assert said == []
    (root / "requirements.txt").write_text("numpy\nscipy\n")
    environment.ensure(root, said.append)
    assert said == ["requirements.txt or pyproject.toml changed: bringing .venv up to date …", "installed"]


def test_a_half_made_environment_is_made_again(tmp_path, making):
    root = project(tmp_path)
    environment.make(root)
    (root / ".venv/left-over").write_text("")
    environment.ensure(root, making.append)
    assert "The environment in .venv is half-made: making it again." in making
    assert not (root / ".venv/left-over").exists()


def test_an_installation_that_is_cut_short_is_not_trusted(tmp_path, making, monkeypatch):
    root = project(tmp_path)
    environment.ensure(root, making.append)
    (root / "requirements.txt").write_text("other\n")

    def fail(root, python):
        raise environment.SetupError("cut short")

    monkeypatch.setattr(environment, "install", fail)
    with pytest.raises(environment.SetupError, match="cut short"):
        environment.ensure(root, making.append)
    monkeypatch.setattr(environment, "install", lambda root, python: making.append("installed again"))
    environment.ensure(root, making.append)
    assert making[-1] == "installed again"


@pytest.mark.parametrize(("stderr", "sentence"), [
    ("WARNING: NewConnectionError: Temporary failure in name resolution", "pip cannot reach the package index"),
    ("ERROR: No matching distribution found for nothing", "No matching distribution found for nothing"),
])
def test_an_installation_that_fails_says_why(tmp_path, monkeypatch, stderr, sentence):
    answer = subprocess.CompletedProcess([], 1, stdout="", stderr=stderr)
    monkeypatch.setattr(environment.subprocess, "run", lambda *given, **more: answer)
    with pytest.raises(environment.SetupError) as refused:
        environment.install(tmp_path, Path(sys.executable))
    assert sentence in str(refused.value)
    assert "The installation failed" in str(refused.value)


def test_an_environment_that_cannot_be_made_says_why(tmp_path, monkeypatch):
    answer = subprocess.CompletedProcess([], 1, stdout="", stderr="no space left")
    monkeypatch.setattr(environment.subprocess, "run", lambda *given, **more: answer)
    with pytest.raises(environment.SetupError, match="could not be made: no space left"):
        environment.make(tmp_path)


def test_a_python_without_ensurepip_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(environment.SetupError, match=r"has no ensurepip.*apt install python3-venv"):
        environment.make(tmp_path)


def test_kernels_started_at_once_share_no_socket(tmp_path):
    first, second = (runner._transport(tmp_path / name)["KernelManager"] for name in "ab")
    assert first["transport"] == second["transport"] == "ipc"
    assert first["ip"] != second["ip"]


def test_a_folder_too_long_for_a_socket_leaves_ports(tmp_path):
    assert "KernelManager" not in runner._transport(tmp_path / ("x" * 100))
