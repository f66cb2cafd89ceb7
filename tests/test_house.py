"""The shape of the package itself: which room may import which, how much code it holds, what its import costs."""

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

import smpcore

PACKAGE = Path(smpcore.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

#: The floor plan, from the ground up: a room imports rooms of lower floors only.
FLOORS = (
    {"arguments", "units", "paths"},
    {"inspection", "metric", "signals", "models", "experiments", "plotting"},
    {"attribution", "tracing", "propagation", "forensics", "smoothing"},
    {"diagnosis"},
)
#: What no prediction imports, so that predicted and measured stay two ways to one number.
MEASUREMENTS = {"attribution", "tracing", "metric", "forensics"}
#: The doors of the house, which belong to no room.
OPENINGS = {"__init__", "__main__"}
# Six of the arrows are the diagnosis's, in which the measurements meet.
MOST_ARROWS, MOST_LINES = 30, 10_499


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms of smpcore that a file imports, its own aside."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: name the room that is imported from"
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("smpcore.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "smpcore":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smpcore."):
            found.add(node.module.split(".")[1])
    return found - {room_of(path)}


def code_lines(path: Path) -> int:
    """Lines that hold a token other than a comment or a docstring."""
    source = path.read_text(encoding="utf-8")
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
             tokenize.ENCODING}
    held = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - docstrings)


def arrows() -> set[tuple[str, str]]:
    return {(room_of(path), other) for path in MODULES for other in imported(path) if path.parent != PACKAGE
            or path.stem not in OPENINGS}


def test_every_room_is_on_the_plan():
    assert {room_of(path) for path in MODULES} - OPENINGS == set().union(*FLOORS)


def test_a_room_imports_lower_floors_only():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    up = sorted((one, other) for one, other in arrows() if floor[other] >= floor[one])
    assert not up, f"imports that do not lead down: {up}"


def test_a_prediction_never_imports_a_measurement():
    touched = {other for one, other in arrows() if one == "propagation"} & MEASUREMENTS
    assert not touched, f"propagation imports {touched}: predicted and measured would not be two ways"


def test_the_package_stays_small():
    lines = sum(code_lines(path) for path in MODULES)
    print(f"{lines} lines of code in {len(MODULES)} files, {len(arrows())} arrows between rooms")
    assert len(arrows()) <= MOST_ARROWS
    assert lines <= MOST_LINES


def test_lines_of_code_are_counted_without_comments_and_docstrings(tmp_path):
    path = tmp_path / "some.py"
    path.write_text('"""What for.\n\nMore."""\n\n# why\nx = """two\nlines"""  # held\n\n\ndef f():\n    """Does."""\n')
    assert code_lines(path) == 3


@pytest.mark.parametrize("name", sorted(smpcore._ALSO))
def test_older_names_lead_to_the_same_module(name):
    old, new = (importlib.import_module(f"smpcore.{each}") for each in (name, smpcore._ALSO[name]))
    assert old is new


def test_import_needs_numpy_scipy_and_torch_alone():
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pandas", "matplotlib", "sklearn", "tqdm", "IPython", "dask", "distributed",
                                  "papermill", "joblib", "lz4", "PIL", "hypothesis"}:
            raise ImportError(f"{name} is not among what import smpcore needs")

sys.meta_path.insert(0, Refuse())
import smpcore
from smpcore import smp, find_kinks, attribute, trace_line, propagation
print(sorted(smpcore.__all__))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for name in ("smp", "find_kinks", "attribute", "trace_line", "propagation"):
        assert name in run.stdout


EXTRAS = {
    "pandas": ("notebooks", "pandas", "from smpcore.experiments import run_table; run_table.load('.')"),
    "matplotlib": ("notebooks", "matplotlib", "import smpcore.plotting"),
    "PIL": ("notebooks", "pillow", "from smpcore import plotting; sys.modules['PIL.Image'] = None; "
            "plotting._with_palette(b'')"),
    "sklearn": ("notebooks", "scikit-learn", "from smpcore.forensics import bank, cross_validate; "
                "cross_validate(bank(), 'kinked')"),
    "joblib": ("notebooks", "joblib", "from smpcore import models; models.face_network()"),
    "lz4": ("notebooks", "lz4", "from smpcore import models; models.face_network()"),
    "snntorch": ("notebooks", "snntorch", "from smpcore.models.jumping_systems import SpikingStress; "
                 "SpikingStress({}, 1)"),
    "tqdm": ("notebooks", "tqdm", "from smpcore import forensics; forensics.make_bank([])"),
    "typer": ("cli", "typer", "import smpcore; smpcore.need('typer')"),
    "transformers": ("architectures", "transformers", "from smpcore.experiments.architectures import build; "
                     "build('vit')"),
}


@pytest.mark.parametrize("package", EXTRAS)
def test_without_an_extra_the_error_names_it(package):
    """In a process of its own: what was imported without the package would stay so for other tests."""
    extra, name, program = EXTRAS[package]
    hidden = [] if package == "PIL" else [package, f"{package}.pyplot"]  # matplotlib itself needs Pillow
    run = subprocess.run([sys.executable, "-c", f"import sys; sys.modules.update(dict.fromkeys({hidden}))\n{program}"],
                         capture_output=True, text=True)
    assert run.returncode == 1
    said = run.stderr.splitlines()[-1]
    assert re.fullmatch(rf"ModuleNotFoundError: {name} is not installed.*pip install 'smpcore\[{extra}\]'", said), said


def test_what_an_extra_itself_lacks_is_not_blamed_on_it(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_at_all'"):
        smpcore.need("half_there")


def test_every_package_that_is_needed_stands_in_its_extra():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {extra: {requirement.split(">")[0].split("=")[0] for requirement in found}
              for extra, found in project["optional-dependencies"].items()}
    for extra, name, _ in EXTRAS.values():
        assert name in listed[extra], f"{name} is not in the extra {extra}"
    source = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    needed = {found.split(".")[0] for found in re.findall(r'\bneed\("([\w.]+)"\)', source)}
    assert needed == set(EXTRAS)


def test_a_package_index_gets_a_page_without_links_into_the_repository():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    links = re.findall(r"\]\(([^)]+)\)", project["readme"]["text"])
    assert links
    assert all(link.startswith("https://") for link in links)
    assert (PACKAGE / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'smpp'"):
        _ = smpcore.smpp


def test_dir_lists_what_is_imported_on_first_use():
    assert {"smp", "find_kinks", "attribute", "trace_line", "propagation", "signals", "forensics"} <= set(dir(smpcore))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_function_says_what_it_does(path):
    name = ".".join(["smpcore", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    module = importlib.import_module(name)
    offered = [getattr(module, each) for each in getattr(module, "__all__", [])]
    bare = [each.__name__ for each in offered if callable(each) and not inspect.getdoc(each)]
    assert not bare, f"{path.name}: {bare} have no docstring"
