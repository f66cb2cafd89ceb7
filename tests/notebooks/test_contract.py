"""The notebooks' contract: every committed notebook keeps to it, and each clause can fail."""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks as contract

CI = Path(__file__).resolve().parent.parent.parent / "ci"

COMMITTED = sorted(contract.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def a_good_notebook():
    def code(source, count, *tags, outputs=()):
        return new_code_cell(source, execution_count=count, metadata={"tags": list(tags)}, outputs=list(outputs))

    printed = [new_output("stream", name="stdout", text="1.0\n")]
    cells = [
        new_markdown_cell("# Title\n\nReading: 5 minutes. Next: [01](01_next.ipynb)"),
        code('seed: int = 0  # seeds every random draw\ndevice: str = "auto"  # where\noutput_dir: str = ""  # to',
             1, "parameters"),
        code("figure()", 2, "main-figure"),
        code("print(1.0)\nassert 1.0 > 0", 3, "nbval-check-output", outputs=printed),
        code("run.save(results={})", 4),
        new_markdown_cell("## Summary\n\ntext\n\n## Exercises\n\ntext"),
        code("...", 5, "exercise"),
        code("pass", 6, "solution"),
        code("assert True", 7, "check"),
        new_markdown_cell("## References"),
    ]
    notebook = new_notebook(cells=cells)
    contract.fold(notebook)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def of(notebook, tmp_path):
    nbformat.write(notebook, tmp_path / "01_case.ipynb")
    return contract.problems(tmp_path / "01_case.ipynb")


def test_a_good_notebook_has_no_problem(tmp_path):
    assert of(a_good_notebook(), tmp_path) == []


def spoil_first(notebook):
    notebook.cells[0].source = "Text"


def spoil_links(notebook):
    notebook.cells[0].source = "# Title"


def spoil_kernel(notebook):
    notebook.metadata["kernelspec"]["name"] = "python311"


def spoil_ids(notebook):
    notebook.cells[1]["id"] = notebook.cells[2]["id"]


def spoil_counts(notebook):
    notebook.cells[4].execution_count = None


def spoil_length(notebook):
    notebook.cells[2].source = "\n".join(f"a{k} = {k}" for k in range(40))


def spoil_date(notebook):
    notebook.cells[3].outputs[0].text = "on 2025-01-02\n"


def spoil_place(notebook):
    notebook.cells[4].outputs = [new_output("stream", name="stdout", text="/home/someone/file\n")]


def spoil_error(notebook):
    notebook.cells[4].outputs = [new_output("error", ename="ValueError", evalue="", traceback=[])]


def spoil_parameters(notebook):
    notebook.cells[1].metadata["tags"] = []


def spoil_annotation(notebook):
    notebook.cells[1].source += "\nsamples = 3  # untyped"


def spoil_literal(notebook):
    notebook.cells[1].source += "\nsamples: int = len('abc')  # derived"


def spoil_help(notebook):
    notebook.cells[1].source += "\nsamples: int = 3"


def spoil_common(notebook):
    notebook.cells[1].source = "seed: int = 0  # seeds every random draw"


def spoil_headings(notebook):
    notebook.cells[-1].source = "## Sources"


def spoil_solution(notebook):
    notebook.cells[7].metadata["tags"] = []


def spoil_order(notebook):
    notebook.cells[6].metadata["tags"], notebook.cells[7].metadata["tags"] = ["solution"], ["exercise"]


def spoil_check(notebook):
    notebook.cells[8].metadata["tags"] = []


def spoil_fold(notebook):
    del notebook.cells[7].metadata["jupyter"]["outputs_hidden"]


def spoil_beginning(notebook):
    notebook.cells[2].outputs = [new_output("display_data", data={"image/png": ""})]
    notebook.cells[2].source = "\n".join(f"a{k} = {k}" for k in range(12))


def spoil_figure(notebook):
    notebook.cells[2].metadata["tags"] = []


def spoil_comparison(notebook):
    notebook.cells[3].metadata["tags"] = []


def spoil_assertion(notebook):
    notebook.cells[3].source = "print(1.0)"


def spoil_results(notebook):
    notebook.cells[4].source = "pass"


def spoil_semicolon(notebook):
    notebook.cells[4].source += ";"


def spoil_size(notebook):
    notebook.cells[2].outputs = [new_output("stream", name="stdout", text="x" * 600_000)]


@pytest.mark.parametrize(("spoil", "sentence"), [
    (spoil_first, "its first cell is not a title"),
    (spoil_links, "its first cell says nothing of minutes, or links to no other notebook"),
    (spoil_kernel, "its kernel is not python3"),
    (spoil_ids, "its cells do not all have an id of their own"),
    (spoil_counts, "it is not executed from top to bottom"),
    (spoil_length, "has 40 lines of code, which belong in smpcore"),
    (spoil_date, "compares an output with a date or a place in it"),
    (spoil_place, "shows a path of the machine that ran it"),
    (spoil_error, "ends in ValueError"),
    (spoil_parameters, "0 cells are tagged parameters, not one"),
    (spoil_annotation, "line 4 of its parameters is not `name: type = value  # help`"),
    (spoil_literal, "the default of parameter samples is not a literal"),
    (spoil_help, "parameter samples has no help comment"),
    (spoil_common, "it has no parameter device"),
    (spoil_headings, "it has no heading with references"),
    (spoil_solution, "it has 1 cells tagged exercise, 0 cells tagged solution, 1 cells tagged check"),
    (spoil_order, "tagged solution, stands where one tagged exercise should"),
    (spoil_check, "it has 1 cells tagged exercise, 1 cells tagged solution, 0 cells tagged check"),
    (spoil_fold, "is not folded: ci/notebooks.py --fold does it"),
    (spoil_beginning, "a reader sees 15 lines of code before the first figure, more than 12"),
    (spoil_figure, "not just one cell is tagged main-figure"),
    (spoil_comparison, "no output is compared"),
    (spoil_assertion, "no cell asserts its claim"),
    (spoil_results, "it writes no results"),
    (spoil_semicolon, "ends in a semicolon"),
    (spoil_size, "more than 500"),
])
def test_each_clause_can_fail(spoil, sentence, tmp_path, monkeypatch):
    # The format's own repair of ids would hide a notebook that comes without them.
    monkeypatch.setattr(nbformat, "write", lambda notebook, path: path.write_text(json.dumps(notebook)))
    notebook = copy.deepcopy(a_good_notebook())
    spoil(notebook)
    assert any(sentence in problem for problem in of(notebook, tmp_path)), of(notebook, tmp_path)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_committed_notebooks_keep_to_the_contract(path):
    assert contract.problems(path) == []


def test_the_notebooks_link_to_notebooks_that_exist():
    names = {path.name for path in COMMITTED}
    for path in COMMITTED:
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
        linked = set(re.findall(r"\]\(([0-9][0-9]_\w+\.ipynb)\)", text))
        assert linked <= names, f"{path.name} links to {sorted(linked - names)}"


def test_executing_a_notebook_in_place_gives_the_same_bytes_twice(tmp_path):
    notebook = a_good_notebook()
    notebook.cells = [cell for cell in notebook.cells if cell.source not in ("figure()", "run.save(results={})")]
    path = tmp_path / "01_case.ipynb"
    nbformat.write(notebook, path)
    contract.execute(path)
    first = path.read_bytes()
    contract.execute(path)
    assert path.read_bytes() == first
    counts = [cell.execution_count for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3, 4, 5]
