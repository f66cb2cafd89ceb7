"""Models and paths by name, and notebook 09 with parameters that are not its defaults."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from smpcore import models

NOTEBOOK = Path(__file__).parent.parent.parent / "notebooks" / "09_your_model.ipynb"

MODULE = '''
import torch
a, b = torch.zeros(3), torch.ones(3)
number = 5
ready = torch.nn.Linear(3, 1)

def model(): return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
def six(): return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU6(), torch.nn.Linear(8, 2))
def no_model(): return "a model"
def broken(): raise RuntimeError("out of ideas")
def needs(width): return torch.nn.Linear(width, 1)
def path(t): return torch.stack([torch.sin(t), torch.cos(t), t], dim=1)
def make_path(): return path
def make_ends(): return a, b
def too_wide(t): return torch.zeros(len(t), 4) + t[:, None]
def flat(t): return t.sum()
def failing(t): raise RuntimeError("no picture")
def flat_end(t): return path(t) / (t[:, None] - 1)
def one_only(t): return path(t)[:1]

class Two(torch.nn.Module):
    def forward(self, x): return x, x

class OneAtATime(torch.nn.Module):
    def forward(self, x):
        if len(x) > 1: raise RuntimeError("one at a time")
        return x

def two(): return Two()
def one_at_a_time(): return OneAtATime()
def the_class(): return Two
def many(): return torch.nn.Linear(3, 100)
def quits():
    import sys
    sys.exit(3)
training = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_for_the_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "mine_for_the_test"


def test_a_model_is_found_by_its_name(mine):
    assert models.load_model(f"{mine}:model")(torch.zeros(1, 3)).shape == (1, 2)
    assert not models.load_model(f"{mine}:model").training
    assert models.load_model(f"{mine}:ready").in_features == 3


def test_a_path_is_found_by_its_name(mine, tmp_path):
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    assert models.load_path(f"{mine}:path")(t).shape == (4, 3)
    assert models.load_path(f"{mine}:make_path")(t).shape == (4, 3)
    assert torch.allclose(models.load_path(f"{mine}:make_ends")(t)[-1], torch.ones(3, dtype=torch.float64))
    for kind in (torch.float32, torch.int64):
        torch.save((torch.zeros(3, dtype=kind), torch.ones(3, dtype=kind)), tmp_path / "ends.pt")
        assert torch.allclose(models.load_path("ends.pt")(t)[2], torch.full((3,), 2 / 3, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "name", "says"), [
    ("model", "model", r"model = 'model': write 'package.module:function'"),
    ("model", 5, "model = 5: write"),
    ("model", "no_such_module_here:model", "the module 'no_such_module_here' cannot be imported"),
    ("model", "{mine}:nothing", "has no 'nothing'"),
    ("model", "{mine}:number", "it is a int, not a function"),
    ("model", "{mine}:no_model", r"it gives a str, not a torch\.nn\.Module"),
    ("model", "{mine}:broken", r"calling it without arguments fails \(RuntimeError: out of ideas\)"),
    ("model", "{mine}:needs", "calling it without arguments fails"),
    ("model", "{mine}:quits", r"calling it without arguments fails \(SystemExit: 3\)"),
    ("model", "leaves_for_the_test:model", r"the module 'leaves_for_the_test' cannot be imported \(SystemExit: 1\)"),
    ("model", "{mine}:the_class", r"it gives the class Two, not a model: let it return Two\(…\), called"),
    ("path", "{mine}:the_class", r"it gives the class Two, not a path: let it return Two\(…\), called"),
    ("path", "path", r"path = 'path': write 'package.module:function' or a file of two tensors"),
    ("path", "{mine}:number", "it is a int, not a function of time"),
    ("path", "{mine}:no_model", "it gives a str, not a function of time"),
    ("path", "nothing.pt", r"path = 'nothing.pt': it cannot be read as a file of tensors"),
    ("path", "three.pt", "it must hold two tensors"),
    ("path", "unlike.pt", "the inputs differ in shape"),
])
def test_what_a_bad_name_gets(mine, tmp_path, kind, name, says):
    (tmp_path / "leaves_for_the_test.py").write_text("import sys; sys.exit(1)")
    torch.save([torch.zeros(3)] * 3, tmp_path / "three.pt")
    torch.save([torch.zeros(3), torch.zeros(4)], tmp_path / "unlike.pt")
    load = models.load_model if kind == "model" else models.load_path
    with pytest.raises(ValueError, match=says):
        load(name.format(mine=mine) if isinstance(name, str) else name)


@pytest.mark.parametrize(("model", "path", "outputs", "says"), [
    ("model", "too_wide", None, r"model: it does not take the path's inputs of shape \(2, 4\): RuntimeError"),
    ("model", "flat", None, r"for 2 times the path returns shape \(\): it must return one input for each"),
    ("model", "one_only", None, r"for 2 times the path returns shape \(1, 3\): it must return"),
    ("model", "failing", None, "path: it fails at t = 0: RuntimeError: no picture"),
    ("model", "flat_end", None, "path: its input at t = 1 holds NaN or infinity"),
    ("training", "path", None, r"model: module 1 \(BatchNorm1d\) is in training mode.*call model.eval\(\) first"),
    ("one_at_a_time", "path", None, "model: it does not take the path's inputs of shape .*one at a time"),
    ("two", "path", None, "model: it returns a tuple, not a tensor: name a function that wraps it"),
    ("many", "path", [], r"the model has 100 outputs.*choose at most 64 with outputs=\[0, 1, …\]"),
    ("model", "path", [2], r"outputs has 2: indices go from 0 to 1"),
    ("model", "path", [0, 0], r"outputs = \[0, 0\]: name each output once"),
])
def test_a_model_and_a_path_that_do_not_fit(mine, model, path, outputs, says):
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=says):
        models.check_fit(models.load_model(f"{mine}:{model}"), models.load_path(f"{mine}:{path}"), times, outputs)


def test_a_model_and_a_path_that_fit(mine):
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    model, path = models.load_model(f"{mine}:many"), models.load_path(f"{mine}:path")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert models.check_fit(model, path, times, [99, 3]) is None
    # What was checked holds: the outputs are there, and the model is as it was.
    assert model(path(times).float())[:, [99, 3]].isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def execute(output_dir, last=None, names=None, **parameters):
    """Run the notebook's cells in this process, up to the cell with id ``last``: what it printed."""
    matplotlib.use("Agg")
    printed, names = io.StringIO(), {} if names is None else names
    names["__name__"] = "__main__"
    with contextlib.redirect_stdout(printed):
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code":
                continue
            exec("".join(cell["source"]), names)
            if cell["id"] == "parameters":
                names |= {"output_dir": str(output_dir), "device": "cpu", **parameters}
            if cell["id"] == last:
                break
    plt.close("all")
    return printed.getvalue()


def test_the_notebook_measures_another_model(mine, tmp_path):
    printed = execute(tmp_path, model=f"{mine}:ready", path=f"{mine}:path", end=6.0, samples=101)
    assert "output 0: SMP 0.00, value jumps 0.00\n" in printed  # a linear model
    printed = execute(tmp_path, model=f"{mine}:model", path=f"{mine}:path", end=6.0, samples=101, outputs=[1])
    found = json.loads((tmp_path / "09_your_model.json").read_text(encoding="utf-8"))["results"]
    assert found["smp_output_1"] > 0
    assert f"output 1: SMP {found['smp_output_1']:.2f}, value jumps 0.00\n" in printed
    assert "output 0: SMP" not in printed
    assert "far more than GELU" not in printed  # the exercises' solutions are about the default network
    assert "is right" not in printed  # and so are the checks
    rows = json.loads((tmp_path / "09_your_model.json").read_text(encoding="utf-8"))["rows"]
    assert {row["output"] for row in rows} == {1}


def test_the_notebooks_example_runs_as_it_stands(tmp_path, monkeypatch):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    words = "".join(next(cell["source"] for cell in cells if cell["id"] == "how"))
    (tmp_path / "mine_of_the_notebook.py").write_text(words.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    printed = execute(tmp_path, model="mine_of_the_notebook:build", path="mine_of_the_notebook:walk", end=6.28)
    assert "in evaluation mode" in printed
    assert "output 1: SMP" in printed


def test_a_layer_is_shown_by_the_name_of_its_module(mine, tmp_path):
    names = {}
    execute(tmp_path, last="table", names=names, model=f"{mine}:six", path=f"{mine}:path")
    assert list(names["table"]["layer"].unique()) == ["1:ReLU6"]


@pytest.mark.parametrize(("parameters", "says"), [
    ({"model": "nowhere_at_all:model"}, "model = 'nowhere_at_all:model': the module"),
    ({"path": "smpcore.paths:blob"}, "model: it does not take the path's inputs"),
    ({"samples": 2}, "parameter samples = 2: it must be a whole number of at least 16"),
    ({"outputs": "all"}, r"parameter outputs = 'all': it must be a list of whole numbers, \[\] for all"),
    ({"end": 0.0}, "parameter end = 0.0: it must be a number above start"),
    ({"start": "now"}, "parameter start = 'now': it must be a number"),
])
def test_what_the_notebook_refuses(tmp_path, parameters, says):
    with pytest.raises(ValueError, match=says):
        execute(tmp_path, last="checks", **parameters)
