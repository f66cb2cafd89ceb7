"""Many runs read into one table, and what is left out of it by name."""

import json
import warnings
from pathlib import Path

import pytest

from smpcore.experiments import results, run_files

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"


def record(folder, notebook="02_relu", about=None, **changes):
    """A run's files, as a notebook and the command that ran it write them."""
    content = {"notebook": notebook, "parameters": {"seed": 0, "device": "auto", "output_dir": "x", "samples": 50},
               "device": "cpu", "threads": 1, "versions": {"torch": "2"}, "results": {"smp": 1.0}, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{notebook}.json").write_text(json.dumps(content))
    if about is not None:
        (folder / "run.json").write_text(json.dumps({"seconds": 2.5, **about}))
    return folder


def test_runs_read_into_one_table(tmp_path):
    for seed in (0, 1):
        results.start("02_relu", seed=seed, device="cpu", output_dir=str(tmp_path / f"run-{seed}"), samples=50).save(
            {"smp": 10.0 + seed, "smp_se": 0.5, "samples": 7})
    # Neither of these is a finished run.
    record(tmp_path / "run-2-failed")
    record(tmp_path / ".run-3")
    about = {"seconds": 2.5, "overhead": 0.5, "run": "abc", "cells": "d", "title": "ReLU", "meanings": {"samples": "n"}}
    for seed in (0, 1):
        (tmp_path / f"run-{seed}" / "run.json").write_text(json.dumps(about))
    frame = results.load(tmp_path)
    assert list(frame.columns[:6]) == ["notebook", "seed", "samples", "smp", "smp_se", "result_samples"]
    assert frame["smp"].tolist() == [10.0, 11.0]
    assert frame["seed"].tolist() == [0, 1]
    # A result that is called like a parameter keeps apart from it.
    assert frame["samples"].tolist() == [50, 50]
    assert frame["result_samples"].tolist() == [7, 7]
    assert frame["seconds"].tolist() == [2.5, 2.5]
    assert frame.attrs["kinds"]["smp"] == "result"
    assert frame.attrs["kinds"]["samples"] == "parameter"
    assert frame.attrs["meanings"]["samples"] == "n"
    assert frame.attrs["meanings"]["smp_se"] == "standard error of smp: result of “ReLU” (02_relu)"
    assert len(results.load([tmp_path / "run-0", tmp_path / "run-1"])) == 2


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder: give the output folder of a run or a sweep"):
        results.load(tmp_path / "nowhere")


def test_a_run_is_in_the_table_once(tmp_path):
    record(tmp_path / "a" / "b")
    assert len(results.load([tmp_path, tmp_path, tmp_path / "a"])) == 1


def test_a_folder_without_runs_is_an_empty_table(tmp_path):
    assert results.load(tmp_path).empty


def test_a_parameter_keeps_its_name_beside_a_column_about_the_run(tmp_path):
    """Notebook 90 has a parameter `threads`; others may have `run`, `seconds`, `notebook`, or results called so."""
    names = {"seed": 0, "threads": 8, "run": 3, "seconds": 4, "notebook": "mine"}
    record(tmp_path / "a", "90_benchmarks", {"run": "abc"}, parameters=names, results={"folder": 5.0, "smp": 1.0})
    record(tmp_path / "b", about={"run": "def"})
    frame = results.load(tmp_path).set_index("run_notebook")
    kinds = frame.attrs["kinds"]
    for name, value in names.items():
        assert frame.loc["90_benchmarks", name] == value
        assert kinds[name] == "parameter"
    assert frame.loc["90_benchmarks", "folder"] == 5.0
    assert frame.loc["90_benchmarks", "run_folder"] == str(tmp_path / "a")
    assert frame["run_run"].to_dict() == {"90_benchmarks": "abc", "02_relu": "def"}
    assert frame["run_threads"].to_dict() == {"90_benchmarks": 1, "02_relu": 1}
    assert frame["run_seconds"].tolist() == [2.5, 2.5]
    assert kinds["run_threads"] == kinds["run_folder"] == "about"
    # A column means one thing in every row.
    assert frame["threads"].isna().to_dict() == {"90_benchmarks": False, "02_relu": True}
    assert list(frame["device"]) == ["cpu", "cpu"]


def test_the_notebook_of_benchmarks_has_a_parameter_that_clashes():
    """What the test above guards against is there."""
    assert "threads: int" in (NOTEBOOKS / "90_benchmarks.ipynb").read_text(encoding="utf-8")


def test_whole_numbers_stay_whole_beside_gaps(tmp_path):
    record(tmp_path / "a", parameters={"seed": 12345678, "large": 10**30}, results={"kinks": 3})
    record(tmp_path / "b", "03_max", parameters={"seed": 1}, results={"smp": 0.5})
    frame = results.load(tmp_path)
    lines = frame.to_csv(index=False).splitlines()
    assert lines[0].startswith("notebook,seed,large,kinks,smp,")
    assert lines[1].startswith(f"02_relu,12345678,{10**30},3,,")
    assert lines[2].startswith("03_max,1,,,0.5,")


def test_a_meaning_is_the_notebooks_own_where_it_gives_one(tmp_path):
    record(tmp_path / "a", about={"meanings": {"samples": "of each signal"}}, meanings={"smp": "in 1/s"})
    record(tmp_path / "b", "03_max", {"title": "Max"}, results={"smp": 2.0, "train_seconds_se": 1.0})
    meanings = results.load(tmp_path).attrs["meanings"]
    assert meanings["smp"] == "02_relu: in 1/s; 03_max: smp: result of “Max” (03_max)"
    assert meanings["samples"] == "02_relu: of each signal; 03_max: parameter of 03_max"
    assert meanings["train_seconds_se"] == "standard error of train seconds, in seconds: result of “Max” (03_max)"


@pytest.mark.parametrize(("text", "why"), [
    ("{", "Expecting property name"),
    ("[1]", "it is not a record"),
    ("{}", "it has no notebook and no parameters and no results"),
    ('{"notebook": 1, "parameters": {}, "results": {}}', "its notebook is not a name"),
    ('{"notebook": "a", "parameters": {}, "results": null}', "its results are not a dictionary"),
    ('{"notebook": "a", "parameters": [], "results": {}}', "its parameters are not a dictionary"),
    ('{"notebook": "a", "parameters": {}, "results": {}, "meanings": []}', "its meanings are not a dictionary"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": "1"}}', "its result smp = '1' is not a finite number"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": null}}', "its result smp = None is not a finite number"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": Infinity}}', "it has Infinity"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": 1e999}}', "its result smp = inf is not a finite number"),
    ("\ud800", "utf-8"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": true}}', "its result smp = True is not a finite number"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": %s}}' % ("9" * 400), "its result smp = 9+ is not a fin"),
    ('{"notebook": "a", "parameters": {}, "results": {"smp": %s}}' % ("9" * 5000), "Exceeds the limit"),
    ('{"notebook": "a", "parameters": {"n": %s}, "results": {}}' % ("9" * 400),
     r"it\['parameters'\]\['n'\] is not a finite number"),
    ('{"notebook": "a", "parameters": {"n": 1e400}, "results": {}}', r"it\['parameters'\]\['n'\] is not a finite"),
    ('{"notebook": "a\\ud800", "parameters": {}, "results": {}}', "holds half a surrogate pair, which no text file"),
    (json.dumps({"notebook": "a", "parameters": {"n": json.loads("[" * 60 + "]" * 60)}, "results": {}}),
     "nested more than 50 levels"),
    ("[" * 100_000, "it is nested too deeply to be read"),
    ('{"notebook": "a", "parameters": {}, "results": {}, "meanings": {"smp": 1}}', "its smp is not text"),
])
def test_a_record_that_is_damaged_is_named_and_left_out(tmp_path, text, why):
    path = record(tmp_path / "a") / "02_relu.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    record(tmp_path / "b")
    with pytest.raises(ValueError, match=why):
        run_files.read_record(path)
    with pytest.warns(UserWarning, match=f"{path} is left out, for it or its run.json is damaged"):
        assert len(results.load(tmp_path)) == 1


@pytest.mark.parametrize(("about", "why"), [
    ('{"seconds": 1, "meanings": []}', "its meanings are not a dictionary"), ("{}", "it has no seconds"),
    ('{"seconds": 1e999}', "it has no seconds"), ('{"seconds": 1, "error": 2}', "its error is not text"),
    ('{"seconds": 1, "overhead": 1e400}', r"it\['overhead'\] is not a finite number"),
    ("[]", "it is not a record")])
def test_what_is_said_of_a_run_is_checked_too(tmp_path, about, why):
    path = record(tmp_path / "a") / "run.json"
    path.write_text(about)
    with pytest.raises(ValueError, match=why):
        run_files.read_about(path)
    with pytest.warns(UserWarning, match="is left out"):
        assert results.load(tmp_path).empty


def test_a_run_that_another_sweep_moves_away_is_no_damage(tmp_path, monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    record(tmp_path / "a")
    monkeypatch.setattr(run_files, "read_record", gone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert results.load(tmp_path).empty
