"""The README's picture of a sweep, and what its command prints."""

import base64
import json
from pathlib import Path

import figure
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def record(folder, seed, length_scale):
    folder.mkdir(parents=True)
    results = {"smp_measured": 10.0 / length_scale + seed, "smp_measured_se": 0.5, "smp_predicted": 10.0 / length_scale}
    (folder / "02_relu.json").write_text(json.dumps({
        "notebook": "02_relu", "parameters": {"seed": seed, "length_scale": length_scale}, "results": results}))


def test_a_sweep_is_drawn_small(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for seed in (0, 1):
        for length_scale in (0.5, 1.0):
            record(tmp_path / f"02_relu/{seed}-{length_scale}", seed, length_scale)
    drawn = figure.write_sweep(tmp_path, tmp_path / "sweep.png")
    assert image.open(drawn).size == image.open(figure.SWEEP).size
    assert figure.SWEEP.stat().st_size < 60_000


def test_a_folder_without_that_sweep_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no sweep of notebook 02 over length_scale: the README has the command"):
        figure.write_sweep(tmp_path, tmp_path / "sweep.png")
    record(tmp_path / "02_relu/a", 0, 0.5)
    with pytest.raises(ValueError, match="has no sweep of notebook 02 over length_scale"):
        figure.write_sweep(tmp_path, tmp_path / "sweep.png")
    assert not (tmp_path / "sweep.png").exists()


def test_the_moving_picture_moves_and_is_small():
    image = pytest.importorskip("PIL.Image")
    with image.open(figure.MOVING) as moving:
        assert moving.n_frames >= 48
        still = moving.convert("RGB").tobytes()
        moving.seek(moving.n_frames // 2)
        assert moving.convert("RGB").tobytes() != still
    assert figure.MOVING.stat().st_size < 1_500_000


def test_the_plane_of_the_face_network_is_the_figure_that_notebook_11_draws(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")

    def run(words, check):
        folder = Path(words[words.index("--output") + 1]) / "11_known_laws"
        folder.mkdir()
        png = base64.b64encode(figure.PLANE.read_bytes()).decode()
        cells = [{"metadata": {"tags": [words[words.index("-p") + 2]]}},
                 {"metadata": {"tags": ["face-figure"]}, "outputs": [{"data": {"image/png": png}}]}]
        (folder / "11_known_laws.ipynb").write_text(json.dumps({"cells": cells if "7" in words else cells[:1]}))

    monkeypatch.setattr(figure.subprocess, "run", run)
    drawn = figure.write_plane(tmp_path / "plane.png", lines=7)
    assert image.open(drawn).size == image.open(figure.PLANE).size
    assert figure.PLANE.stat().st_size < 200_000
    with pytest.raises(ValueError, match="has no figure in a cell tagged face-figure: execute it first"):
        figure.write_plane(tmp_path / "none.png", lines=8)
    assert not (tmp_path / "none.png").exists()


def test_what_a_command_prints_is_written_below_it(tmp_path):
    pytest.importorskip("typer", reason="the command line is an extra")
    command = "smpcore why smpcore.models:reference_cnn --walk smpcore.models:reference_line --seconds 1 --fps 40"
    readme = tmp_path / "README.md"
    readme.write_text(f"Before\n\n```\n{command}\n```\n\n```text\nold words\n```\n\nafter\n", encoding="utf-8")
    figure.write_command(readme)
    written = readme.read_text(encoding="utf-8")
    assert "old words" not in written
    assert written.startswith(f"Before\n\n```\n{command}\n```\n\n```text\nAt 40 frames per unit of t")
    assert written.endswith("over all outputs\n```\n\nafter\n")
    # The README itself is written in this way.
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    assert shown.startswith("At 30 frames per unit of t")
    assert "pool1:max_pool2d" in shown
