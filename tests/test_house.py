"""The shape of the package itself: which module may import which, and what `import smpcore` costs."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import smpcore

PACKAGE = Path(smpcore.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MEASUREMENTS = {"metric", "attribution", "tracing", "switches", "forensics"}


def imported(path: Path) -> set[str]:
    """The modules of smpcore that a file names in its imports, by their first name below smpcore."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("smpcore.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                inside = path.parent.relative_to(PACKAGE).parts
                base = ["smpcore", *inside[: len(inside) - node.level + 1]]
                module = ".".join([*base, *([module] if module else [])])
            if module == "smpcore":
                found |= {name.name for name in node.names}
            elif module.startswith("smpcore."):
                found.add(module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "propagation").glob("*.py")), ids=lambda path: path.name)
def test_a_prediction_never_imports_a_measurement(path):
    touched = {name.lstrip("_") for name in imported(path)} & MEASUREMENTS
    assert not touched, f"{path.name} imports {touched}: predicted and measured would not be two ways"


@pytest.mark.parametrize(("low", "high"), [
    ("metric", {"attribution", "tracing", "propagation", "plotting", "forensics", "switches"}),
    ("device", {"attribution", "tracing", "propagation", "plotting", "forensics", "switches", "metric"}),
    ("paths", {"attribution", "tracing", "propagation", "plotting", "forensics"}),
    ("signals", {"attribution", "tracing", "propagation", "plotting", "forensics"}),
    ("switches", {"attribution", "tracing", "propagation", "plotting", "forensics"}),
    ("attribution", {"forensics", "propagation"}),
    ("tracing", {"forensics", "propagation"}),
])
def test_arrows_point_down_only(low, high):
    path = PACKAGE / f"{low}.py"
    assert not imported(path) & high


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


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'smpp'"):
        _ = smpcore.smpp


def test_dir_lists_what_is_imported_on_first_use():
    assert {"smp", "find_kinks", "attribute", "trace_line", "propagation", "signals", "forensics"} <= set(dir(smpcore))


PUBLIC = [path for path in MODULES if not path.name.startswith("_") or path.name == "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_stays_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_function_says_what_it_does(path):
    name = ".".join(["smpcore", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    module = importlib.import_module(name)
    offered = [getattr(module, each) for each in getattr(module, "__all__", [])]
    bare = [each.__name__ for each in offered if callable(each) and not inspect.getdoc(each)]
    assert not bare, f"{path.name}: {bare} have no docstring"
