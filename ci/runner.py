"""Executes notebooks with papermill and keeps what came out of each run; needs the environment."""

import ast
import concurrent.futures
import html
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import papermill
import yaml
from environment import ROOT
from tqdm import tqdm
from traitlets.config import Config

NOTEBOOKS = ROOT / "notebooks"
# A socket's address has room for 107 bytes.
_LONGEST_SOCKET = 100


class Refused(Exception):
    """What was asked for cannot be run; nothing was started."""


@dataclass
class Outcome:
    """One notebook's run."""

    name: str
    folder: Path
    seconds: float
    error: str = ""
    record: dict = field(default_factory=dict)

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.name}.ipynb"


def available() -> list[str]:
    """Names of the notebooks, without their ending, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def choose(starts: list[str]) -> list[str]:
    """The notebooks whose names begin so.

    Raises
    ------
    Refused
        For a start that none has.
    """
    names = available()
    for start in starts:
        if not any(name.startswith(start) for name in names):
            raise Refused(f"no notebook begins with {start!r}; there are: {', '.join(names)}")
    return [name for name in names if not starts or any(name.startswith(start) for start in starts)]


def parameters_of(name: str) -> dict[str, dict]:
    """A notebook's parameters: name -> {default, type, help}."""
    found = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    return {key: {"default": ast.literal_eval(entry["default"]), "type": entry["inferred_type_name"],
                  "help": entry["help"]} for key, entry in found.items()}


def check(name: str, given: dict, known: dict | None = None) -> dict:
    """The parameters given to a notebook, refused where it has no such parameter or another type.

    Raises
    ------
    Refused
        By name, with the names that exist or the type that is wanted.
    """
    known = parameters_of(name) if known is None else known
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise Refused(f"{name} has no parameter {key!r}; it has: {', '.join(known)}")
        default = known[key]["default"]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise Refused(f"{name}: parameter {key} = {value!r} is a {type(value).__name__}, but its default "
                          f"{default!r} is a {type(default).__name__}")
        checked[key] = value
    return checked


def from_file(path: Path, names: list[str]) -> dict[str, dict]:
    """The parameters of each notebook in a YAML file whose top keys are numbers, or `all`.

    Raises
    ------
    Refused
        For a file that cannot be read, or a top key that is neither.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise Refused(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict | None) for value in content.values()):
        raise Refused(f"{path}: its top keys are a notebook's number or 'all', with parameters below each")
    sections = {f"{key:02d}" if isinstance(key, int) else str(key): value or {} for key, value in content.items()}
    numbers = {name[:2] for name in available()}
    if unknown := set(sections) - numbers - {"all"}:
        raise Refused(f"{path}: no notebook {', '.join(sorted(unknown))}; there are {', '.join(sorted(numbers))}")
    return {name: {**sections.get("all", {}), **sections.get(name[:2], {})} for name in names}


def execute(names: list[str], given: dict[str, dict], folder: Path, jobs: int) -> list[Outcome]:
    """Every notebook, ``jobs`` at a time; a failing one does not stop the others."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    outcomes = {}
    # One process for each: papermill changes its own process's folder, and a crash stays where it was.
    with concurrent.futures.ProcessPoolExecutor(jobs, max_tasks_per_child=1,
                                                mp_context=_spawn()) as pool:
        waiting = {pool.submit(execute_one, name, given[name], str(folder / name), threads): name
                   for name in names}
        try:
            for done in tqdm(concurrent.futures.as_completed(waiting), total=len(names), unit="notebook"):
                name = waiting[done]
                try:
                    outcomes[name] = done.result()
                except Exception as error:
                    outcomes[name] = Outcome(name, folder / name, 0.0, f"{type(error).__name__}: {error}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[name] for name in names]


def execute_one(name: str, given: dict, folder: str, threads: int) -> Outcome:
    """One notebook into its folder: the executed copy, and the JSON file of its numbers."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ["TQDM_DISABLE"] = "1"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    given = {**given}
    if not given.get("output_dir"):
        given["output_dir"] = str(target)
    begin, error = time.perf_counter(), ""
    sockets = Path(tempfile.mkdtemp(prefix="kernel-"))
    try:
        papermill.execute_notebook(str(NOTEBOOKS / f"{name}.ipynb"), str(target / f"{name}.ipynb"), given,
                                   cwd=str(NOTEBOOKS), progress_bar=False, kernel_name="python3",
                                   config=_transport(sockets))
    except papermill.PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    record = Path(given["output_dir"]) / f"{name}.json"
    content = json.loads(record.read_text(encoding="utf-8")) if record.is_file() and not error else {}
    return Outcome(name, target, time.perf_counter() - begin, error, content)


def _transport(folder: Path) -> Config:
    """How a notebook's kernel is reached: by sockets in a folder of its own, where there are such.

    No port is then taken twice, and nothing is said of encryption. Jupyter's own choice for these sockets is
    one name in the notebooks' folder, which two kernels started at once would share.
    """
    name = folder / "socket"
    if os.name != "posix" or len(os.fsencode(name)) > _LONGEST_SOCKET:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": str(name)}})


def listing(names: list[str]) -> str:
    """Notebooks with their parameters, defaults and help."""
    lines = []
    for name in names:
        lines.append(f"{name}   {title_of(NOTEBOOKS / f'{name}.ipynb')}")
        for key, entry in parameters_of(name).items():
            lines.append(f"    {key}: {entry['type']} = {entry['default']!r}   {entry['help']}")
    return "\n".join(lines)


def title_of(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            return cell.source.lstrip().splitlines()[0].lstrip("# ").strip()
    return path.stem


def main_figure(path: Path) -> str:
    """The PNG, in base64, of the cell tagged `main-figure`, else the first of the notebook, else ""."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    cells.sort(key=lambda cell: "main-figure" not in cell.metadata.get("tags", []))
    for cell in cells:
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                return output["data"]["image/png"].strip().replace("\n", "")
    return ""


def write_index(outcomes: list[Outcome], folder: Path) -> Path:
    """`index.html`: one file, readable without a server."""
    cards = []
    for outcome in outcomes:
        there = outcome.notebook.is_file()
        figure = main_figure(outcome.notebook) if there else ""
        title = title_of(outcome.notebook if there else NOTEBOOKS / f"{outcome.name}.ipynb")
        link = outcome.notebook.relative_to(folder).as_posix()
        rows = "".join(f"<tr><td>{html.escape(key)}</td><td>{value:.6g}</td></tr>"
                       for key, value in outcome.record.get("results", {}).items() if value is not None)
        cards.append(
            f"<section><h2>{html.escape(title)}</h2><p class={'bad' if outcome.error else 'good'}>"
            f"{html.escape('failed: ' + outcome.error if outcome.error else 'ran')}, {outcome.seconds:.0f} s · "
            + (f"<a href='{html.escape(link)}'>{html.escape(outcome.name)}.ipynb</a></p>" if there else "</p>")
            + (f"<img alt='main figure of {html.escape(title)}' src='data:image/png;base64,{figure}'>" if figure
               else "")
            + f"<table>{rows}</table></section>")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Executed notebooks</title><style>"
        "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "img{max-width:100%}td{padding:.1rem 1rem .1rem 0;border-bottom:1px solid #ddd}"
        ".bad{color:#b00020}.good{color:#006b3c}</style><h1>Executed notebooks</h1>"
        + "".join(cards) + "</html>\n")
    path = folder / "index.html"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _spawn():
    import multiprocessing
    return multiprocessing.get_context("spawn")
