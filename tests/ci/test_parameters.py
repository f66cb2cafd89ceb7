"""What a notebook is given, read as it was meant and refused where it cannot be."""

from pathlib import Path

import nbformat
import parameters
import pytest
from tiny import write

ROOT = Path(__file__).resolve().parent.parent.parent

KNOWN = {
    "seed": {"default": 0, "type": "int", "help": "seeds every random draw"},
    "output_dir": {"default": "", "type": "str", "help": "where the results go"},
    "scale": {"default": 2.0, "type": "float", "help": "of the answer"},
    "name": {"default": "a", "type": "str", "help": "a word"},
    "picture": {"default": "b.jpg", "type": "str", "help": "a file, or the name of a sample"},
    "box": {"default": [1], "type": "list", "help": "four numbers"},
    "wide": {"default": False, "type": "bool", "help": "whether"},
    "any": {"default": None, "type": "None", "help": "anything"},
}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3), ("-4", -4), ("-1e-3", -0.001), ("010", 10), ("0.5", 0.5), (".5", 0.5), ("1e-3", 0.001),
    ("1.0e-3", 0.001), ("2.", 2.0),
    ("true", True), ("False", False), ("[1, 2.5, a]", [1, 2.5, "a"]), ("{a: 1}", {"a": 1}),
    # Words that the YAML of 2005 takes for a number in base 60, a truth and a date.
    ("1:30", "1:30"), ("yes", "yes"), ("2025-01-02", "2025-01-02"), ("1_000", "1_000"), ("<<", "<<"),
])
def test_yaml_is_read_as_it_is_meant(text, value):
    found = parameters.read(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["3", "yes", "[1", "a: b", "'quoted'", ""])
def test_a_parameter_that_is_a_word_is_taken_as_it_stands(text):
    assert parameters.read(text, KNOWN["name"]) == text


@pytest.mark.parametrize(("text", "sentence"), [
    ("[1", "'[1': the value cannot be read as YAML"),
    ("{a: 1, a: 2}", "'a' is given twice"),
    ("9" * 5000, "the value cannot be read as YAML"),
    ("{[1]: 2}", "the value cannot be read as YAML"),
    ("&a [*a]", "the alias *a stands within an anchor: write the values out"),
    ("[" * 5000, "the value cannot be read as YAML"),
])
def test_what_is_not_yaml_is_refused(text, sentence):
    with pytest.raises(parameters.Refused) as refused:
        parameters.read(text)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_that_multiply_are_refused_at_once(tmp_path):
    """Ten to the ninth values in 300 characters."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "p.yaml").write_text("all:\n  " + "\n  ".join(lines))
    with pytest.raises(parameters.Refused, match=r"the alias \*a0 stands within an anchor"):
        parameters.from_file(tmp_path / "p.yaml", ["01_good"], ["01_good"])
    (tmp_path / "p.yaml").write_text("all: {box: &here [1, 2], any: *here}")
    assert parameters.from_file(tmp_path / "p.yaml", ["01_good"], ["01_good"]) == {
        "01_good": {"box": [1, 2], "any": [1, 2]}}


@pytest.mark.parametrize(("text", "found"), [
    ("1,2", ["1", "2"]), ("[1, 2],[3, 4]", ["[1, 2]", "[3, 4]"]), ('"a, b",c', ["a, b", "c"]),
    ("1:30,yes", ["1:30", "yes"]), (" a b , c ", ["a b", "c"])])
def test_values_in_a_row_are_told_apart(text, found):
    assert parameters.items(text) == found


@pytest.mark.parametrize(("text", "sentence"), [
    ("1,,2", "its values cannot be read as YAML"), ("[1", "its values cannot be read as YAML"),
    ("a,''", "a value is missing between two commas")])
def test_values_in_a_row_that_are_not_whole_are_refused(text, sentence):
    with pytest.raises(parameters.Refused, match=sentence):
        parameters.items(text)


@pytest.mark.parametrize(("values", "sentence"), [
    ({"scales": 1}, "01_x has no parameter 'scales'; it has: seed, output_dir, scale, name, picture, box, wide, any"),
    ({"seed": "a"}, "01_x: parameter seed = 'a' is of type str, but its default 0 of type int"),
    ({"seed": True}, "parameter seed = True is of type bool"),
    ({"seed": 1.0}, "parameter seed = 1.0 is of type float"),
    ({"scale": True}, "parameter scale = True is of type bool"),
    ({"wide": "yes"}, "parameter wide = 'yes' is of type str, but its default False of type bool"),
    ({"scale": 10**400}, "parameter scale is not made of finite numbers, words and lists"),
    ({"scale": float("nan")}, "parameter scale is not made of finite numbers"),
    ({"box": [1, float("inf")]}, "parameter box is not made of finite numbers"),
    ({"any": {1: 2, "a": 3}}, "parameter any is not made of finite numbers"),
    ({"any": {1, 2}}, "parameter any is not made of finite numbers"),
    ({"seed": 10**400}, "parameter seed is not made of finite numbers, words and lists: it is not a finite number"),
    ({"name": "\udcff"}, "parameter name is not made of finite numbers, words and lists: it holds half a surrogate"),
    ({"any": {"\ud800": 1}}, "a key of it holds half a surrogate pair"),
    ({"any": deep(60)}, "is nested more than 50 levels deep"),
])
def test_a_parameter_is_checked_by_name_and_type(values, sentence):
    with pytest.raises(parameters.Refused) as refused:
        parameters.check("01_x", values, KNOWN)
    assert sentence in str(refused.value)


def test_a_whole_number_does_for_a_float():
    found = parameters.check("01_x", {"scale": 3, "any": [1], "seed": 2}, KNOWN)
    assert found == {"scale": 3.0, "any": [1], "seed": 2}
    assert isinstance(found["scale"], float)


def test_a_relative_path_is_the_callers_and_a_word_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("me.jpg", "cpu"):
        (tmp_path / name).mkdir()
    values = {"picture": "me.jpg", "name": "cpu", "output_dir": "new"}
    assert parameters.check("01_x", values, KNOWN) == {
        "picture": str(tmp_path / "me.jpg"), "name": "cpu", "output_dir": str(tmp_path / "new")}
    assert parameters.check("01_x", {"picture": "sample.jpg", "output_dir": ""}, KNOWN) == {
        "picture": "sample.jpg", "output_dir": ""}  # a sample's name, and the default place


def test_the_notebooks_say_which_of_their_parameters_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("")
    for start, name, path in (("00", "picture", True), ("09", "path", True), ("02", "kernel", False)):
        notebook = next((ROOT / "notebooks").glob(f"{start}_*.ipynb"))
        found = parameters.check(notebook.stem, {name: "mine"}, parameters.parameters_of(notebook))[name]
        assert (found == str(tmp_path / "mine")) == path, f"{notebook.stem}: {name}"


@pytest.mark.parametrize(("value", "named"), [
    ("mine:build", True), ("a.b:c", True), ("C:\\me.jpg", False), ("a:b:c", False), ("rbf", False), (3, False),
    ("tcp://a", False)])
def test_a_function_is_told_by_its_name(value, named):
    assert parameters.names_code({"model": value}) == named


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "01_x.ipynb").write_text("text")
    with pytest.raises(parameters.Refused, match=r"01_x\.ipynb cannot be read as a notebook"):
        parameters.parameters_of(tmp_path / "01_x.ipynb")


def test_a_default_that_is_no_literal_is_refused(tmp_path):
    write(tmp_path, "01_x")
    notebook = nbformat.read(tmp_path / "01_x.ipynb", 4)
    notebook.cells[1].source = "size: int = len('abc')  # derived"
    nbformat.write(notebook, tmp_path / "01_x.ipynb")
    with pytest.raises(parameters.Refused, match=r"01_x: the default of size, len\('abc'\), is not a literal"):
        parameters.parameters_of(tmp_path / "01_x.ipynb")


@pytest.mark.parametrize(("text", "sentence"), [
    (b"'07': {seed: 1}", "no notebook 07; there are 01, 02"),
    (b"yes: {seed: 3}", "no notebook yes; there are 01, 02"),
    (b"true: {seed: 3}", "no notebook True; there are 01, 02"),
    (b"[1, 2]", "its top keys are a notebook's number or 'all'"),
    (b"'01': 3", "its top keys are a notebook's number or 'all'"),
    (b"{", "cannot be read as YAML"),
    (b"\xff\xfe\x00", "cannot be read as YAML"),
    (b"all: {seed: 1}\nall: {seed: 2}", "'all' is given twice"),
    (b"all: {seed: 1, seed: 2}", "'seed' is given twice"),
    (b"01: {seed: 1}\n'01': {seed: 2}", "notebook 01 is given twice"),
    (None, "nothing.yaml cannot be read as YAML"),
])
def test_a_file_of_parameters_is_checked(tmp_path, text, sentence):
    file = tmp_path / "nothing.yaml"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(parameters.Refused) as refused:
        parameters.from_file(file, ["01_good"], ["01_good", "02_bad"])
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_gives_common_and_own_parameters(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("all: {seed: 3}\n01: {scale: 5}\n'02':\n")
    names = ["01_good", "02_bad"]
    assert parameters.from_file(file, names, names) == {"01_good": {"seed": 3, "scale": 5}, "02_bad": {"seed": 3}}
    file.write_text("")
    assert parameters.from_file(file, names, names) == {"01_good": {}, "02_bad": {}}
