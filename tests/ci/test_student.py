"""Copies for students: nothing of the solutions, nothing overwritten."""

import argparse

import commands
import nbformat
import pytest
import student
from environment import Refused
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks


def tagged(source, *tags, **more):
    return new_code_cell(source, metadata={"tags": list(tags)}, **more)


@pytest.fixture
def paths(tmp_path):
    notebook = new_notebook(cells=[
        new_markdown_cell("# Title\n\n![a picture](figures/one.png)"),
        tagged("x = 1", execution_count=1, outputs=[new_output("stream", name="stdout", text="the answer is 42\n")]),
        tagged("def answer():\n    raise NotImplementedError('Exercise 1: write it')", "exercise"),
        tagged("def answer():\n    return 42", "solution"),
        new_markdown_cell("Because 6 × 7 is 42.", metadata={"tags": ["solution"]}),
        tagged("assert answer() == 42", "check")])
    (tmp_path / "from/figures").mkdir(parents=True)
    (tmp_path / "from/figures/one.png").write_bytes(b"drawn")
    (tmp_path / "from/figures/other.png").write_bytes(b"not shown")
    nbformat.write(notebook, tmp_path / "from/01_case.ipynb")
    return [tmp_path / "from/01_case.ipynb"]


def test_a_copy_has_exercises_and_checks_but_neither_solutions_nor_outputs(paths, tmp_path):
    (copied,) = student.write(paths, tmp_path / "class")
    cells = nbformat.read(copied, 4).cells
    assert [cell.metadata.get("tags", []) for cell in cells] == [[], [], ["exercise"], ["check"]]
    assert [path.name for path in (tmp_path / "class/figures").iterdir()] == ["one.png"]
    assert "return 42" not in copied.read_text()
    assert "answer is 42" not in copied.read_text()
    assert "6 × 7" not in copied.read_text()
    assert all(cell.execution_count is None for cell in cells if cell.cell_type == "code")
    assert nbformat.read(paths[0], 4).cells[1].outputs, "the notebook itself is left as it is"


def test_a_students_work_is_not_overwritten(paths, tmp_path):
    (copied,) = student.write(paths, tmp_path / "class")
    copied.write_text("my answers")
    with pytest.raises(Refused, match=r"class: it has 01_case.ipynb already, maybe with answers in it"):
        student.write(paths, tmp_path / "class")
    assert copied.read_text() == "my answers"


def test_a_folder_that_cannot_be_made_is_refused(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"--student .*file"):
        student.write(paths, tmp_path / "file" / "class")


def test_the_command_copies_the_notebooks_that_are_named(tmp_path, capsys):
    chosen = argparse.Namespace(source=None, notebooks=["00", "01"], list=False, connection=None,
                                student=str(tmp_path / "class"), site=False)
    assert commands.main(chosen) == 0
    assert sorted(path.name[:2] for path in (tmp_path / "class").glob("*.ipynb")) == ["00", "01"]
    assert capsys.readouterr().out.startswith("2 notebooks without solutions and outputs")


def test_no_committed_notebook_gives_its_solutions_away():
    for path in notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        given = "\n".join(cell.source for cell in student.copy_of(nbformat.read(path, 4)).cells)
        for cell in nbformat.read(path, 4).cells:
            if "solution" in cell.metadata.get("tags", []):
                assert cell.source not in given, f"{path.name}: {cell.id}"
