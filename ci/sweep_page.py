"""The output of a sweep: one tidy table, the meanings of its columns, and one page that shows both offline."""

import html
import json
from pathlib import Path
from urllib.parse import quote

import page_parts

_STYLE = """
body{max-width:80rem}label{display:inline-block;margin-right:1.5rem}select{font:inherit;max-width:60vw}
svg{display:block;max-width:56rem;width:100%}svg text{fill:currentColor;font:14px sans-serif}
"""


def collect(wanted, failures, output: Path) -> tuple[Path, Path, Path]:
    """`table.csv`, `columns.csv` and `index.html` of all the finished runs in a folder, and the failures by name.

    Parameters
    ----------
    wanted
        The tasks of this sweep; other sweeps' runs in the same folder are in the table as well.
    failures
        run -> (task, error).
    output
        The sweep's folder.

    Raises
    ------
    OSError
        Where one of them cannot be written.
    """
    import pandas

    from smpcore.experiments import run_files, run_table
    frame = run_table.load(output)
    meanings, kinds = frame.attrs["meanings"], frame.attrs["kinds"]
    columns = pandas.DataFrame([(name, kinds[name], meanings[name]) for name in frame.columns],
                               columns=["column", "kind", "meaning"])
    # Two sweeps may write here at once: each file is replaced whole.
    texts = {"table.csv": frame.to_csv(index=False), "columns.csv": columns.to_csv(index=False),
             "index.html": page(frame, failures, output, editions(frame, wanted))}
    for name, text in texts.items():
        run_files.write_atomically(output / name, text)
    return tuple(output / name for name in texts)


def editions(frame, wanted) -> str:
    """A sentence where the table mixes this edition of a notebook with another; else ""."""
    now = {(task.notebook, task.about["cells"]) for task in wanted}
    names = {name for name, _ in now}
    notebook, cells = (frame.attrs["about"][name] for name in ("notebook", "cells"))
    if frame.empty:
        return ""
    older = sum(name in names and (name, edition) not in now
                for name, edition in zip(frame[notebook], frame[cells], strict=True))
    return f"{older} runs come from other editions of a notebook; the column {cells} tells them apart" if older else ""


def page(frame, failures, output: Path, note: str = "") -> str:
    """The page: a plot of a chosen column against another, grouped by a third, and the table below it."""
    meanings = frame.attrs["meanings"]
    rows = [{key: _cell(value) for key, value in row.items()} for row in frame.to_dict("records")]
    kinds = frame.attrs["kinds"]
    folder = frame.attrs["about"].get("folder")  # a place of the machine that ran it: the table has a link instead
    data = {"columns": [name for name in frame.columns if name != folder],
            "rows": [{name: value for name, value in row.items() if name != folder} for row in rows],
            "parameters": [name for name in frame.columns if kinds[name] == "parameter"],
            "results": [name for name in frame.columns if kinds[name] == "result"]}
    script = "".join(f"const {name}={_literal(value)};" for name, value in data.items())
    script += Path(__file__).with_name("sweep_page.js").read_text(encoding="utf-8")
    columns = {name: meanings[name] for name in frame.columns}
    body = [[_notebook(row, frame.attrs["about"], output) if name == folder else page_parts.cell(row[name])
             for name in columns] for row in rows]
    failed = "".join(f"<p class=bad>failed: {html.escape(task.notebook)} {html.escape(str(task.given))}: "
                     f"{html.escape(error)}</p>" for task, error in failures.values())
    return (f"{page_parts.start(f'Sweep: {output.name}', _STYLE)}<h1>Sweep: {len(rows)} runs</h1>{failed}"
            f"<p>{html.escape(note)}</p><p><label>plot <select id=y></select></label>"
            "<label>against <select id=x></select></label><label>grouped by <select id=group></select></label></p>"
            "<svg id=plot role=img aria-label='the chosen result of each run; lines join the means'></svg>"
            "<p>Small points are runs. Where several runs share a place, the large point is their mean, and the bar "
            "its standard error to either side.</p><p id=left-out></p>"
            f"{page_parts.meanings(columns)}"
            + page_parts.table(columns, body, "One row for each run; a click on a column's name sorts by it.")
            + f"<script>{script}{page_parts.SORT}</script></html>\n")


def _notebook(row, about, output: Path) -> str:
    """The cell that leads to a run's executed notebook, where it lies below the page; else its folder's name."""
    folder = Path(row[about["folder"]])
    try:
        place = (folder / f"{row[about['notebook']]}.ipynb").relative_to(output)
    except ValueError:
        return page_parts.cell(folder.name)
    link = quote(place.as_posix())
    return f"<td data-value='{link}'><a href='{link}'>notebook</a></td>"


def _literal(value) -> str:
    """JSON for use inside a script: it can neither end the script nor open a comment in it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _cell(value):
    import pandas
    if pandas.isna(value):
        return None  # the run has no such column
    return value.item() if hasattr(value, "item") else value
