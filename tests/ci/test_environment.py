"""The project's environment: made once, alone, and again only for a reason that is said."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import environment
import pytest
from tiny import write
from waiting import LONG, alive, until

ROOT = Path(__file__).resolve().parent.parent.parent
CI = ROOT / "ci"

OLD_ENOUGH = ("run.py", "test.py", "environment.py")


@pytest.mark.parametrize("name", OLD_ENOUGH)
def test_an_old_python_can_read_what_refuses_it(name):
    assert ast.parse((CI / name).read_text(encoding="utf-8"), feature_version=(3, 6)).body


@pytest.mark.parametrize("name", OLD_ENOUGH[:2])
@pytest.mark.parametrize("here", [[], ["--here"]])
def test_an_old_python_is_refused_by_each_command(name, here):
    # The first Python whose argparse knows action="extend" is 3.8; without it nothing may be read before the check.
    program = ("import argparse, runpy, sys\nsys.version_info = (3, 7, 1)\nargparse._ExtendAction = None\n"
               f"sys.argv = ['x', *{here}]\nrunpy.run_path({str(CI / name)!r}, run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "Python 3.7 is too old: run this with Python 3.11 or later\n"


def test_an_old_python_is_refused():
    with pytest.raises(environment.SetupError, match=r"Python 3\.9 is too old: run this with Python 3\.11 or later"):
        environment.need_python((3, 9, 1))


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "pro ject"
    place.mkdir()
    (place / "requirements.txt").write_text("numpy\n")
    (place / "pyproject.toml").write_text("")
    return place


@pytest.fixture
def said(monkeypatch):
    """What is said while an environment is made in no time."""
    found = []

    def make(place):
        python = environment.interpreter(place)
        python.parent.mkdir(parents=True)
        python.write_text("")

    monkeypatch.setattr(environment, "make", make)
    monkeypatch.setattr(environment, "install", lambda place, python: found.append("installed"))
    return found


MAKING = "Making the environment in .venv (once; some minutes, mostly to download torch) …"


def test_the_environment_is_made_once_and_again_when_requirements_change(root, said):
    environment.ensure(root, said.append)
    assert said == [MAKING, "installed"]
    said.clear()
    environment.ensure(root, said.append)
    assert said == []
    (root / "requirements.txt").write_text("numpy\nscipy\n")
    environment.ensure(root, said.append)
    assert said == ["requirements.txt or pyproject.toml changed: bringing .venv up to date …", "installed"]


def test_a_half_made_environment_is_made_again(root, said):
    environment.make(root)
    (root / ".venv/left-over").write_text("")
    environment.ensure(root, said.append)
    assert said == ["The environment in .venv is half-made: making it again.", MAKING, "installed"]
    assert not (root / ".venv/left-over").exists()


def test_another_python_has_an_environment_of_its_own(root, said, monkeypatch):
    environment.ensure(root, said.append)
    said.clear()
    now = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr(environment.sys, "version_info", (3, 99, 0))
    environment.ensure(root, said.append)
    assert said[0] == f"The environment in .venv is one of {now}, and this is Python 3.99: making it again."


def test_a_copied_project_has_an_environment_of_its_own(root, said):
    environment.ensure(root, said.append)
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    said.clear()
    environment.ensure(copy, said.append)
    assert said[0] == f"The environment in .venv was made in {root}, whose code it would run: making it again."
    assert said[1:] == [MAKING, "installed"]


def test_an_environment_without_its_python_is_made_again(root, said):
    environment.ensure(root, said.append)
    environment.interpreter(root).unlink()
    environment.ensure(root, said.append)
    assert "The environment in .venv has no Python: making it again." in said


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_environment_of_ours_is_left_alone(root, said, kind):
    if kind == "link":
        (root / "elsewhere").mkdir()
        (root / ".venv").symlink_to(root / "elsewhere")
    else:
        (root / ".venv").write_text("")
    with pytest.raises(environment.SetupError, match=rf"\.venv is a {kind}, not an environment that this command "
                                                     "made: remove it, or add --here"):
        environment.ensure(root, said.append)
    assert said == []


def test_a_folder_that_cannot_be_written_is_said(root, said):
    (root / "runs").write_text("in the way")
    with pytest.raises(environment.SetupError, match=r"the environment cannot be made in .*runs"):
        environment.ensure(root, said.append)


def test_an_installation_that_is_cut_short_is_not_trusted(root, said, monkeypatch):
    environment.ensure(root, said.append)
    (root / "requirements.txt").write_text("other\n")

    def fail(root, python):
        raise environment.SetupError("cut short")

    monkeypatch.setattr(environment, "install", fail)
    with pytest.raises(environment.SetupError, match="cut short"):
        environment.ensure(root, said.append)
    monkeypatch.setattr(environment, "install", lambda root, python: said.append("installed again"))
    environment.ensure(root, said.append)
    assert said[-1] == "installed again"


def test_a_second_start_waits_for_the_first(root, said, monkeypatch):
    """It neither deletes what the first installs nor installs again."""
    installing, go_on, second = threading.Event(), threading.Event(), []

    def install(place, python):
        installing.set()
        assert go_on.wait(LONG)
        said.append("installed")

    monkeypatch.setattr(environment, "install", install)
    first = threading.Thread(target=environment.ensure, args=(root, said.append))
    first.start()
    assert installing.wait(LONG)
    other = threading.Thread(target=environment.ensure, args=(root, second.append))
    other.start()
    until(lambda: second)
    go_on.set()
    first.join(LONG)
    other.join(LONG)
    assert second == ["Another start is making the environment in .venv: waiting for it …"]
    assert said == [MAKING, "installed"]


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


def test_a_terminal_of_another_encoding_is_no_failure():
    program = (f"import sys; sys.path.insert(0, {str(CI)!r}); import environment\n"
               "environment.go_on('run.py', [], True); environment._say('waiting ' + chr(0x2026))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="latin-1",
                          env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stdout.strip()) == (0, "waiting ?"), done.stderr


def test_what_pip_says_of_its_progress_is_shown(root, tmp_path, capfd):
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho Downloading torch\necho a warning >&2\n")
    pip.chmod(0o755)
    environment.install(root, pip)
    assert "Downloading torch" in capfd.readouterr().err  # standard output stays the command's own


def test_an_environment_that_cannot_be_made_says_why(tmp_path, monkeypatch):
    answer = subprocess.CompletedProcess([], 1, stdout="no space left")
    monkeypatch.setattr(environment.subprocess, "run", lambda *given, **more: answer)
    with pytest.raises(environment.SetupError, match="could not be made: no space left"):
        environment.make(tmp_path)


def test_a_python_without_ensurepip_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(environment.SetupError, match=r"has no ensurepip.*apt install python3-venv"):
        environment.make(tmp_path)


@pytest.mark.parametrize(("raised", "code", "sentence"), [
    (KeyboardInterrupt(), 130, "Interrupted while the environment was made: the next start makes it again."),
    (environment.SetupError("no network"), 2, "no network"),
])
def test_an_environment_that_is_not_made_ends_in_a_sentence(monkeypatch, capsys, raised, code, sentence):
    def ensure():
        raise raised

    monkeypatch.setattr(environment, "ensure", ensure)
    assert environment.go_on("run.py", [], here=False) == code
    assert sentence in capsys.readouterr().err


def test_without_exec_the_command_is_a_child(monkeypatch):
    monkeypatch.setattr(environment.os, "name", "nt")
    monkeypatch.setattr(environment.signal, "signal", lambda *given: None)
    assert environment.become([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    real = Path.read_text
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for quota, expected in (("max 100000", 6), ("250000 100000", 3), ("1000 100000", 1)):
        monkeypatch.setattr(Path, "read_text", lambda path, *given, quota=quota, **more: (
            quota if path.name == "cpu.max" else real(path, *given, **more)))
        assert environment.cores() == expected


def test_cores_where_the_system_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert environment.cores() == 1


@pytest.fixture
def installed(root):
    """A project whose environment is in place: its Python is the one that runs this."""
    shutil.copytree(CI, root / "ci", ignore=shutil.ignore_patterns("__pycache__"))
    python = environment.interpreter(root)
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    (root / ".venv/made-from").write_text("\n".join(environment.made_from(root)) + "\n")
    return root


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_a_sweep_with_its_table_and_a_sentence(installed, tmp_path, jobs):
    """In the project's environment, that is without --here; as a terminal does it, to every process of the group.

    The interruption comes once the first run is kept and the others are under way, which they say by a file each.
    """
    body = f"open(r'{tmp_path}/begun-{{}}'.format(seed), 'w').close()\nimport time; time.sleep(3600 if seed else 0)"
    write(tmp_path / "notebooks", "01_good", body, plain=True)
    output, begun = tmp_path / "out", [tmp_path / f"begun-{seed}" for seed in range(1, 1 + int(jobs))]
    process = subprocess.Popen(
        [sys.executable, str(installed / "ci/run.py"), "--notebooks-in", str(tmp_path / "notebooks"), "--output",
         str(output), "--jobs", jobs, "--sweep", "seed=0:3"], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)})
    until(lambda: list(output.glob("01_good/[0-9a-f]*")) and all(path.exists() for path in begun), process)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=LONG)
    assert process.returncode == 130, printed
    # A kernel may still say that its parent has gone.
    ours = [line for line in printed.splitlines() if line and not line.startswith("[IPKernelApp]")]
    assert ours[-1] == "Interrupted: finished runs are kept."
    assert str(installed) not in printed.replace(str(output), "")  # no traceback of the command; kernels may speak
    assert len((output / "table.csv").read_text(encoding="utf-8").splitlines()) == 2
    until(lambda: not alive(process.pid))  # nothing goes on after it


@pytest.mark.skipif(os.name != "posix", reason="a process that becomes another")
def test_the_command_becomes_the_environments_python(installed):
    program = "import os, sys; print(os.getpid(), *sys.argv[1:])"
    (installed / "ci/probe.py").write_text(
        "import sys; sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0]); import environment\n"
        f"if '--here' in sys.argv: exec({program!r}); sys.exit(5)\n"
        "sys.exit(environment.go_on(__file__, ['a b'], False))\n")
    process = subprocess.Popen([sys.executable, str(installed / "ci/probe.py")], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=LONG)
    assert process.returncode == 5
    assert printed.split() == [str(process.pid), "--here", "a", "b"]


@pytest.mark.parametrize(("text", "short"), [
    ("a word", "a word"), ("12345678901", "12345 … (1 characters are left out) … 78901"), ("\ud800", "\\ud800"),
    (ValueError("why"), "why")])
def test_a_sentence_fits_the_terminal_and_any_file(text, short):
    assert environment.shortened(text, most=10) == short
