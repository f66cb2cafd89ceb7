"""`smpcore why`, `curve` and `relax`: what they take, what they print, and how they end."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("typer", reason="the command line is an extra")
from typer.testing import CliRunner

from smpcore import __main__ as command_line

MODULE = '''
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()
    def forward(self, x):
        return {"place": self.inner(x), "sure": self.inner(x)[:, :1].sigmoid()}

def two(): return Two()

class Small(torch.nn.Module):
    picture_input = {"size": 6, "channels": 1}
    def forward(self, x): return x.flatten(1)[:, :2].abs()

def small(): return Small()

class Words(torch.nn.Module):
    def forward(self, x): return "a word"

def words(): return Words()
def walk(t): return torch.stack([torch.sin(t), torch.cos(t), 0.1 * t], dim=1)
def slow(t):
    import sys, time
    print("x", file=sys.stderr, flush=True)
    time.sleep(60)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_at_the_command_line.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.normal(size=3))
    np.save(tmp_path / "b.npy", rng.normal(size=3))
    t = np.arange(0, 3, 1 / 30)
    np.save(tmp_path / "states.npy", np.stack([np.sin(t), np.cos(t), 0.1 * t], 1))
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "frames").mkdir()
    smooth = np.cumsum(np.cumsum(rng.normal(size=(30, 40, 3)), 0), 1)
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    for n in range(20):
        image.fromarray(np.roll(smooth, n // 2, 1)).save(tmp_path / "frames" / f"{n:03d}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "curve.csv").write_text("t,x\n" + "".join(f"{s},{abs(np.sin(s))}\n" for s in np.arange(0, 10, 1 / 30)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    """Exit code, what was printed, and what was said on the error stream."""
    words = [word.replace("mine:", "mine_at_the_command_line:") for word in words]
    found = CliRunner().invoke(command_line.app, words)
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize("walk", [
    ["--walk", "mine:walk"], ["--walk", "a.npy", "b.npy"], ["--walk", "a.npy", "b.npy", "a.npy"],
    ["--walk", "states.npy"], ["--walk", "mine:walk", "--seconds", "2", "--start", "1", "--fps", "25"],
])
def test_every_walk_is_taken(folder, walk):
    code, said, error = run("why", "mine:build", *walk)
    assert code == 0, error
    assert "of the output's roughness is kinks" in said or "the output moves smoothly" in said
    assert "2:relu" in said
    page = (folder / "why.html").read_text(encoding="utf-8")
    assert "data:image/png" in page
    assert "http" not in page, "nothing is fetched"


@pytest.mark.parametrize("walk", [["--walk", "frames/"], ["--walk", "frames/000.png", "--box", "10,8,30,28",
                                                          "--pan", "3,2", "--zoom", "1.05", "--size", "8"]])
def test_pictures_are_walked_along(folder, walk):
    code, said, error = run("why", "mine:small", *walk, "--report", "pictures.html")
    assert code == 0, error
    assert "is the motion itself" in said
    assert (folder / "pictures.html").read_text(encoding="utf-8").count("<img") == 3


def test_json_outputs_and_weights(folder):
    import mine_at_the_command_line as mine

    weights = mine.build().state_dict()
    torch.save({name: 0.5 * part for name, part in weights.items()}, folder / "half.pt")
    code, said, error = run("why", "mine:build", "--walk", "mine:walk", "--json", "--weights", "half.pt",
                            "--outputs", "1")
    assert code == 0, error
    found = json.loads(said)
    whole = json.loads(run("why", "mine:build", "--walk", "mine:walk", "--json", "--outputs", "1")[1])
    # Weights and biases of both layers are half: the bend of each unit a half, its gain a half.
    assert found["total"][0] == pytest.approx(whole["total"][0] / 4)
    named = json.loads(run("why", "mine:two", "--walk", "mine:walk", "--json", "--outputs", "place:1")[1])
    assert named["total"] == pytest.approx(whole["total"])
    first = json.loads(run("why", "mine:two", "--walk", "mine:walk", "--json")[1])
    assert len(first["total"]) == 2, "the first of several tensors"


def test_a_curve(folder):
    code, said, error = run("curve", "curve.csv", "--fps", "30", "--column", "x", "--report", "curve.html")
    assert code == 0, error
    assert "This curve shows kinks" in said
    assert "log_dimensionless_jerk" in said
    assert "slope_variation" in (folder / "curve.html").read_text(encoding="utf-8")
    found = json.loads(run("curve", "curve.csv", "--fps", "30", "--column", "x", "--json")[1])
    assert found["cause"] == "kinks"
    assert found["verdict"]["verdict"] == "kinked"


def test_a_model_is_made_smooth(folder):
    code, said, error = run("relax", "mine:build", "--calibration", "states.npy", "--out", "smooth.pt",
                            "--layers", "2:relu")
    assert code == 0, error
    assert "made smooth: 2:relu" in said
    smooth = torch.load(folder / "smooth.pt", weights_only=False)
    assert smooth(torch.zeros(1, 3)).shape == (1, 2)
    assert not any(isinstance(part, torch.nn.ReLU) for part in smooth.modules())


@pytest.mark.parametrize(("words", "says"), [
    (["why", "mine:nothing", "--walk", "mine:walk"], "model = 'mine_at_the_command_line:nothing': the module"),
    (["why", "mine:build", "--walk", "mine:nowhere"], "path = 'mine_at_the_command_line:nowhere': the module"),
    (["why", "mine:build", "--walk", "none.png"], "picture = 'none.png': there is no such file"),
    (["why", "mine:build", "--walk", "none.npy"], "'none.npy' cannot be read as an .npy of numbers"),
    (["why", "mine:build", "--walk", "a.npy", "frames/000.png"], "of several files each must be an .npy of one"),
    (["why", "mine:build", "--walk", "empty"], "'empty': it is no .npy, and no folder with pictures in it"),
    (["why", "mine:build", "--walk", "frames/000.png"], "the model does not run on inputs of shape"),
    (["why", "mine:build", "--walk", "frames/000.png", "--box", "1,2"], "box = '1,2': write 4 numbers with commas"),
    (["why", "mine:build", "--walk", "frames/000.png", "--pan", "a,b"], "pan = 'a,b': write 2 numbers with commas"),
    (["why", "mine:build", "--walk", "mine:walk", "--fps", "0"], "fps = 0.0: it must be a number above 0"),
    (["why", "mine:build", "--walk", "mine:walk", "--outputs", "0,x"], "outputs = '0,x': write numbers"),
    (["why", "mine:build", "--walk", "mine:walk", "--outputs", "7"], "outputs = '7': there are outputs 0 to 1"),
    (["why", "mine:two", "--walk", "mine:walk", "--outputs", "where"], "'where': the model returns place, sure"),
    (["why", "mine:words", "--walk", "mine:walk"], "the model returns no tensor: name a function"),
    (["why", "mine:build", "--walk", "mine:walk", "--weights", "a.npy"], "weights = 'a.npy': they cannot be loaded"),
    (["why", "mine:build", "--walk", "mine:walk", "--device", "abacus"], "device 'abacus' is not known"),
    (["curve", "curve.csv", "--fps", "30"], "has these columns of numbers: t, x; name one with --column"),
    (["relax", "mine:build", "--calibration", "states.npy", "--out", "s.pt", "--layers", "9:relu"], "layers has"),
])
def test_what_is_wrong_gets_a_sentence_and_2(folder, words, says):
    code, _, error = run(*words)
    assert code == 2
    assert error.startswith("smpcore: ")
    assert says in error
    assert "Traceback" not in error


def test_usage_and_help():
    assert run("why")[0] == 2
    assert run("whatever")[0] == 2
    for command in ([], ["why"], ["curve"], ["relax"]):
        code, said, _ = run(*command, "--help")
        assert code == 0
        assert "Usage: " in said


def test_ctrl_c_ends_it_quietly(folder):
    words = [sys.executable, "-m", "smpcore", "why", "mine_at_the_command_line:build", "--walk",
             "mine_at_the_command_line:slow"]
    # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=heard, env={
            **os.environ, "PYTHONPATH": str(Path(command_line.__file__).parent.parent),
            "PYTHONUNBUFFERED": "1"}) as process:
        process.stderr.read(1)  # the path is asked for inputs
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        code = process.wait()
    assert code == 130
    assert "stopped" in said
    assert "Traceback" not in said


def test_without_its_library_the_command_names_the_extra():
    program = "import sys; sys.modules['typer'] = None; import smpcore.__main__"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 1
    assert "pip install 'smpcore[cli]'" in found.stderr
    assert "Traceback" not in found.stderr
