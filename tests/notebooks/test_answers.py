"""The exercises: each check passes on the solution, and fails on the stub and on answers that are usual mistakes.

Of a notebook only those cells are run that its exercises need, with the parameters of `check.yaml`, or with smaller
ones where it is the cells before the exercises that take the time.
"""

import ast

import nbformat
import pytest
import yaml
from wrong_answers import WRONG

import notebooks

CHECKS = yaml.safe_load((notebooks.NOTEBOOKS / "parameters/check.yaml").read_text(encoding="utf-8"))
#: Of 07 the networks are then those that are stored, which need no training.
FEWER = {"04": {"pictures": 100}, "07": {"networks_per_kind": 2, "steps": 300, "seed": 0},
         "10": {"samples": 21, "frames": 32}}
PARTS = ("exercise", "solution", "check")


def part_of(cell):
    return next((tag for tag in cell.metadata.get("tags", []) if tag in PARTS), None)


def names(source):
    """What a cell defines, and what it uses."""
    defined, used = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if isinstance(node, ast.AugAssign | ast.Subscript | ast.Attribute):  # changes a thing: defines it as well
            target = node.target if isinstance(node, ast.AugAssign) else node.value
            if isinstance(target, ast.Name) and (isinstance(node, ast.AugAssign) or isinstance(node.ctx, ast.Store)):
                defined.add(target.id)
                used.add(target.id)
    return defined, used


def needed(cells, wanted):
    """Of the cells, in order: those that define what is wanted, and what those need."""
    chosen = []
    for cell in reversed(cells):
        defined, used = names(cell.source)
        if defined & wanted:
            wanted = wanted | used
            chosen.append(cell)
    return chosen[::-1]


def exercises(path):
    """(exercise, solution, check) of a notebook, and the other cells that they need."""
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    parts = {tag: [cell for cell in code if part_of(cell) == tag] for tag in PARTS}
    wanted = set().union(*(names(cell.source)[1] for cells in parts.values() for cell in cells))
    return list(zip(*parts.values(), strict=True)), needed([cell for cell in code if part_of(cell) is None], wanted)


CHECKED = sorted(notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def run(source, place, scope):
    exec(compile(source, place, "exec"), scope)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.stem)
def test_checks_know_right_answers_from_wrong_ones(path, tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    monkeypatch.chdir(notebooks.NOTEBOOKS)
    own = CHECKS.get(path.name[:2], {}) | FEWER.get(path.name[:2], {})
    given = {**CHECKS["all"], **own, "output_dir": str(tmp_path), "device": "cpu"}
    found, before = exercises(path)
    scope = {"__name__": "__main__", "display": lambda *shown, **more: None}  # what a kernel has besides
    for cell in before:
        run(cell.source, f"{path.name}:{cell.id}", scope)
        if "parameters" in cell.metadata.get("tags", []):
            scope.update(given)
    for number, (exercise, solution, check) in enumerate(found, 1):
        place = f"{path.name}, exercise {number}"
        run(exercise.source, place, scope)
        with pytest.raises((NotImplementedError, AssertionError), match=rf"^Exercise {number}: \w+"):
            run(check.source, place, scope)
        for wrong, sentence in WRONG[path.name[:2], number]:
            run(exercise.source, place, scope)
            run(wrong, place, scope)
            with pytest.raises(AssertionError, match=sentence):
                run(check.source, place, scope)
        run(exercise.source, place, scope)
        run(solution.source, place, scope)
        run(check.source, place, scope)
        assert capsys.readouterr().out.rstrip().endswith(f"Exercise {number} is right.")


def test_every_exercise_has_answers_that_are_wrong():
    counts = {path.name[:2]: len(exercises(path)[0]) for path in CHECKED}
    assert set(WRONG) == {(number, k) for number, count in counts.items() for k in range(1, count + 1)}
    assert all(WRONG.values())


def test_a_student_reads_how_to_begin():
    """The first cell of exercises says what the stubs and the checks are."""
    for path in CHECKED:
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
        assert "your own body in its place" in text, path.name


def test_only_what_is_needed_is_run():
    def cell(source):
        return nbformat.v4.new_code_cell(source)

    sources = "import os", "a = 1", "b = a + 1", "c = {}", "b += 1", "c[1] = os", "print(b)"
    cells = [cell(source) for source in sources]
    assert [each.source for each in needed(cells, {"b"})] == ["a = 1", "b = a + 1", "b += 1"]
    assert [each.source for each in needed(cells, {"c"})] == ["import os", "c = {}", "c[1] = os"]
