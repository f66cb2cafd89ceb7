"""The output of a sweep: one tidy table, the meanings of its columns, and one page that shows both offline."""

import html
import json
from pathlib import Path

_STYLE = """
body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
table{border-collapse:collapse;font-size:14px}th{cursor:help;text-align:left;border-bottom:2px solid #444}
th,td{padding:.2rem .8rem .2rem 0}td{border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
.bad{color:#b00020}label{margin-right:1.5rem}svg text{font:13px sans-serif}div.wide{overflow-x:auto}
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
    data = {"columns": list(frame.columns), "rows": rows,
            "parameters": [name for name in frame.columns if kinds[name] == "parameter"],
            "results": [name for name in frame.columns if kinds[name] == "result"]}
    script = "".join(f"const {name}={_literal(value)};" for name, value in data.items())
    script += Path(__file__).with_name("sweep_page.js").read_text(encoding="utf-8")
    head = "".join(f"<th title='{html.escape(meanings[name], quote=True)}'>{html.escape(name)}</th>"
                   for name in frame.columns)
    body = "".join("<tr>" + "".join(f"<td>{_shown(row[name])}</td>" for name in frame.columns) + "</tr>"
                   for row in rows)
    failed = "".join(f"<p class=bad>failed: {html.escape(task.notebook)} {html.escape(str(task.given))}: "
                     f"{html.escape(error)}</p>" for task, error in failures.values())
    return (f"<!doctype html><html lang=en><meta charset=utf-8><title>Sweep: {html.escape(output.name)}</title>"
            f"<style>{_STYLE}</style><h1>Sweep: {len(rows)} runs</h1>{failed}<p>{html.escape(note)}</p>"
            "<p><label>plot <select id=y></select></label><label>against <select id=x></select></label>"
            "<label>grouped by <select id=group></select></label></p>"
            "<svg id=plot viewBox='0 0 900 400' role=img aria-label='the chosen result of each run; lines join the "
            "means'></svg><p id=left-out></p><p>Hold the pointer over a column's name for its meaning; columns.csv "
            f"has them all.</p><div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"</div><script>{script}</script></html>\n")


def _literal(value) -> str:
    """JSON that can neither end the script it stands in nor open a comment there."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _cell(value):
    import pandas
    if pandas.isna(value):
        return None  # the run has no such column
    return value.item() if hasattr(value, "item") else value


def _shown(value) -> str:
    if value is None:
        return ""
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))
