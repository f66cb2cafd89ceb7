"""What a run of a notebook leaves behind."""

import json
import os

import numpy as np
import pytest
import torch

from smpcore.experiments import results


def begin(folder, **changes):
    return results.start("02_relu", **{"seed": 0, "device": "cpu", "output_dir": str(folder), "samples": 50, **changes})


@pytest.mark.parametrize(("changes", "kind", "sentence"), [
    ({"seed": 1.0}, TypeError, "parameter seed = 1.0: it must be a whole number"),
    ({"seed": True}, TypeError, "parameter seed = True: it must be a whole number"),
    ({"seed": -1}, ValueError, "parameter seed = -1: it must be at least 0"),
    ({"output_dir": None}, TypeError, "parameter output_dir = None: it must be the path of a folder, or ''"),
    ({"device": "gpu"}, ValueError, "device 'gpu' is not known"),
])
def test_parameters_that_every_notebook_has_are_checked(changes, kind, sentence, tmp_path):
    with pytest.raises(kind, match=sentence):
        begin(tmp_path, **changes)


def test_a_parameter_is_refused_by_name(tmp_path):
    run = begin(tmp_path)
    run.check(True, "samples", "be at least 100")
    with pytest.raises(ValueError, match="parameter samples = 50: it must be at least 100"):
        run.check(False, "samples", "be at least 100")


def test_the_seed_reaches_numpy_and_torch(tmp_path):
    def draw(seed):
        begin(tmp_path, seed=seed)
        return np.random.rand(), torch.rand(()).item()  # noqa: NPY002  the global state is what is seeded

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    begin(tmp_path, seed=2**40)  # numpy's own seeds end at 2³²


def test_the_record_has_everything(tmp_path):
    run = begin(tmp_path / "new" / "folder", seed=5)
    path = run.save({"smp": torch.tensor(1.5), "kinks": np.int64(3)},
                    rows=[{"x": np.float64(0.5), "y": torch.ones(2), "z": float("nan")}])
    assert path == tmp_path / "new" / "folder" / "02_relu.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"notebook", "parameters", "seed", "device", "threads", "versions", "results", "rows"}
    assert content["parameters"]["samples"] == 50
    assert (content["seed"], content["device"], content["notebook"]) == (5, "cpu", "02_relu")
    assert content["threads"] == torch.get_num_threads()
    assert content["versions"]["torch"] == torch.__version__
    assert content["results"] == {"smp": 1.5, "kinks": 3}
    # JSON knows no NaN.
    assert content["rows"] == [{"x": 0.5, "y": [1.0, 1.0], "z": None}]


def test_the_record_of_a_machine_without_matplotlib(tmp_path, monkeypatch):
    real = results.importlib.metadata.version

    def version(name):
        if name == "matplotlib":
            raise results.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(results.importlib.metadata, "version", version)
    versions = json.loads(begin(tmp_path).save({"smp": 1.0}).read_text())["versions"]
    assert "matplotlib" not in versions
    assert versions["torch"] == torch.__version__


@pytest.mark.parametrize(("value", "kind"), [
    ("many", "str"), ([1.0], "list"), (torch.ones(2), "Tensor"), (float("nan"), "float"), (np.inf, "float")])
def test_a_result_is_one_number(value, kind, tmp_path):
    with pytest.raises(TypeError, match=f"result smp = .*, a {kind}: a result is one finite number"):
        begin(tmp_path).save({"smp": value})
    assert not list(tmp_path.iterdir())


def test_no_folder_named_means_the_projects_runs(tmp_path, monkeypatch):
    assert begin("").output_dir.parts[-2:] == ("runs", "02_relu")
    # Installed elsewhere, the working folder's.
    monkeypatch.setattr(results.smpcore, "__file__", str(tmp_path / "site-packages" / "smpcore" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert begin("").output_dir == tmp_path / "runs" / "02_relu"


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = begin(tmp_path).save({"smp": 1.0})

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        begin(tmp_path).save({"smp": 2.0})
    assert json.loads(path.read_text(encoding="utf-8"))["results"] == {"smp": 1.0}
    assert [each.name for each in tmp_path.iterdir()] == ["02_relu.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        begin(tmp_path / "file").save({"smp": 1.0})


def test_meanings_of_results_are_kept(tmp_path):
    path = begin(tmp_path).save({"smp": 1.0, "smp_se": 0.1}, meanings={"smp": "SMP of the answer, in 1/s"})
    assert json.loads(path.read_text(encoding="utf-8"))["meanings"] == {"smp": "SMP of the answer, in 1/s"}
    with pytest.raises(ValueError, match="meanings of spm, which are not among the results: smp, smp_se"):
        begin(tmp_path).save({"smp": 1.0, "smp_se": 0.1}, meanings={"spm": "a slip of the pen"})


def test_others_may_read_what_is_written(tmp_path):
    mask = os.umask(0o022)
    try:
        path = begin(tmp_path).save({"smp": 1.0})
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644
