"""What the README shows is there, and what it says to type works."""

import re
from pathlib import Path

import pytest

from smpcore import models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_run(capsys):
    lines = re.search(r"```python\n(.*?)```", README, re.S)[1]
    first, second = models.reference_line()
    exec(lines, {"model": models.reference_cnn(), "first_input": first, "second_input": second})
    printed = capsys.readouterr().out
    assert "2:max_pool2d" in printed
    assert float(re.search(r"tensor\(\[([0-9.]+)", printed)[1]) == pytest.approx(models.REFERENCE_SMP, rel=0.01)
    assert len([line for line in lines.splitlines() if line.strip()]) <= 6  # two imports and four lines


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert len(links) > 5
    assert not missing


def test_the_picture_is_small_and_is_the_notebooks(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    import figure

    kept, fresh = ROOT / "notebooks" / "figures" / "start_here.png", figure.write(figure=tmp_path / "again.png")
    assert kept.stat().st_size < 100_000
    assert image.open(kept).size == image.open(fresh).size
    empty = tmp_path / "empty.ipynb"
    empty.write_text('{"cells": []}')
    with pytest.raises(ValueError, match=r"empty\.ipynb has no figure in a cell tagged main-figure"):
        figure.main_figure(empty)
