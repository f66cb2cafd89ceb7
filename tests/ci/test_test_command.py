"""The command that checks everything: on which instruction sets, with how many threads, and what it skips."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent

_found = importlib.util.spec_from_file_location("test_command", ROOT / "ci/test.py")  # "test" is Python's own
command = importlib.util.module_from_spec(_found)
_found.loader.exec_module(command)


@pytest.mark.parametrize(("name", "own", "machine", "reason"), [
    ("AVX2", "AVX512", "x86_64", ""),
    ("DEFAULT", "AVX512", "x86_64", ""),
    ("DEFAULT", "AVX2", "AMD64", ""),
    ("AVX2", "AVX2", "x86_64", "it is this processor's own"),
    ("DEFAULT", "DEFAULT", "x86_64", "it is this processor's own"),
    ("AVX2", "DEFAULT", "x86_64", "this processor lacks it"),
    ("AVX2", "NEON", "aarch64", "aarch64 has other instructions"),
])
def test_an_instruction_set_that_is_not_there_is_skipped_with_a_word(name, own, machine, reason):
    assert command.why_not(name, own, machine) == reason


def test_torch_takes_the_instruction_set_that_it_is_told(monkeypatch):
    own = command.own_set()
    assert own == torch.backends.cpu.get_cpu_capability()
    for name, told in command.SETS.items():
        if not command.why_not(name, own, platform.machine()):
            with monkeypatch.context() as patched:
                for key, value in told.items():
                    patched.setenv(key, value)
                assert command.own_set() == name


def test_every_run_compares_notebooks_and_numeric_tests_on_three_instruction_sets(monkeypatch):
    monkeypatch.setattr(command.environment, "cores", lambda: 2)
    found = command.stages(False, list(command.SETS))
    told = [more.get("ATEN_CPU_CAPABILITY") for name, _, more in found if "compared" in name]
    assert told == [None, "avx2", "default"]
    numeric = [(line, more) for name, line, more in found if name.startswith("numeric")]
    assert [more["ATEN_CPU_CAPABILITY"] for _, more in numeric] == ["avx2", "default"]
    assert all("numeric" in line for line, _ in numeric)
    # As many processes as cores, with one thread, but once with two.
    divided = [(line[line.index("-n") + 1], more["OMP_NUM_THREADS"])
               for name, line, more in found if "compared" in name or name.startswith("numeric")]
    assert divided == [("2", "1"), ("2", "2"), ("2", "1"), ("2", "1"), ("2", "1")]
    assert found[-1][0] == "tests"
    assert "numeric" not in found[-1][1]


def test_every_setting_runs_everything_on_request(monkeypatch):
    monkeypatch.setattr(command.environment, "cores", lambda: 2)
    found = command.stages(True, list(command.SETS))
    for what in ("tests", "the committed notebooks"):
        settings = {(more.get("ATEN_CPU_CAPABILITY"), more["OMP_NUM_THREADS"])
                    for name, _, more in found if name.startswith(what)}
        assert settings == {(told, count) for told in (None, "avx2", "default") for count in ("1", "2", "4")}
    assert not [line for _, line, _ in found if "numeric" in line]
    count = "import torch; print(torch.get_num_threads())"  # also where there are fewer cores
    told = next(more for name, _, more in found if name == "tests with 4 threads")
    assert subprocess.check_output([sys.executable, "-c", count], env={**os.environ, **told}, text=True) == "4\n"
    assert [more.get("ATEN_CPU_CAPABILITY") for _, line, more in found if "ci/run.py" in line] == [
        None, "avx2", "default"]


def test_a_word_that_the_command_does_not_know_is_refused(capsys):
    assert command.main(["--processor"]) == 2
    assert "--processor: this command knows --here and --processors" in capsys.readouterr().err


def test_a_test_that_hangs_is_ended_and_says_where_it_stood(tmp_path):
    """With the project's own settings but for the seconds; also one that waits in C, for a lock."""
    (tmp_path / "test_hangs.py").write_text(
        "import threading\nlock = threading.Lock()\nlock.acquire()\n"
        "def test_waits_for_ever():\n    assert lock.acquire()\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir",
                           str(tmp_path), "-p", "no:cacheprovider", "--timeout", "1", str(tmp_path)],
                          capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTEST_ADDOPTS": ""})
    assert done.returncode != 0
    assert "Timeout" in done.stdout + done.stderr
    assert "in test_waits_for_ever" in done.stdout + done.stderr


def test_without_a_browser_it_says_what_is_skipped_and_how_to_get_one(monkeypatch, capsys):
    monkeypatch.setattr(command.environment, "go_on", lambda *_: None)
    monkeypatch.setattr(command.subprocess, "call", lambda *_, **__: 0)
    monkeypatch.setattr(command, "own_set", lambda: "DEFAULT")
    for found, said in ((None, True), ("/usr/bin/chromium", False)):
        monkeypatch.setattr(command.browser, "program", lambda found=found: found)
        assert command.main([]) == 0
        printed = capsys.readouterr().out
        assert ("== skipped: the site in a browser, for no Chromium is installed" in printed) == said
        assert ("apt-get install chromium" in printed) == said


def test_the_browser_is_the_first_that_the_system_has(monkeypatch):
    monkeypatch.setattr(command.browser.shutil, "which", {"google-chrome": "/opt/chrome"}.get)
    assert command.browser.program() == "/opt/chrome"
    monkeypatch.setattr(command.browser.shutil, "which", lambda _: None)
    assert command.browser.program() is None
