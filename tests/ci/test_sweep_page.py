"""The page and the tables of a sweep: one file each, offline, and what is drawn in order."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import run_store
import sweep_page

from smpcore.experiments import results

CI = Path(__file__).resolve().parent.parent.parent / "ci"


def record(folder, seed, notebook="01_good", cells="now", **parameters):
    folder.mkdir(parents=True)
    content = {"notebook": notebook, "parameters": {"seed": seed, **parameters}, "device": "cpu", "threads": 1,
               "results": {"answer": 2.0 * seed}}
    (folder / f"{notebook}.json").write_text(json.dumps(content))
    about = {"seconds": 1.0, "cells": cells, "run": folder.name, "meanings": {"seed": "of <every> 'draw'"}}
    (folder / "run.json").write_text(json.dumps(about))


def failures():
    task = run_store.Task("x/01_good.ipynb", {"seed": 9}, {"cells": "now"}, "r")
    return {"r": (task, "RuntimeError: <b>")}


def test_three_files_say_everything(tmp_path):
    for seed in (1, 2):
        record(tmp_path / f"01_good/{seed}", seed)
    found = sweep_page.collect([], failures(), tmp_path)
    assert [path.name for path in found] == ["table.csv", "columns.csv", "index.html"]
    table, columns, html = (path.read_text(encoding="utf-8") for path in found)
    assert table.splitlines()[0].startswith("notebook,seed,answer,")
    assert len(table.splitlines()) == 3
    # Each column of the table has a line of its own.
    assert len(columns.splitlines()) == 1 + len(table.splitlines()[0].split(","))
    assert columns.splitlines()[:3] == ["column,kind,meaning", "notebook,about,the notebook that ran",
                                        "seed,parameter,of <every> 'draw'"]
    assert "answer,result,answer: result of 01_good" in columns
    assert "title='of &lt;every&gt; &#x27;draw&#x27;'>seed</th>" in html
    assert "failed: 01_good {&#x27;seed&#x27;: 9}: RuntimeError: &lt;b&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


def test_words_cannot_end_or_hide_the_script(tmp_path):
    record(tmp_path / "01_good/1", 1, name="<!--<script></script>")
    html = sweep_page.page(results.load(tmp_path), {}, tmp_path)
    data = html.split("<script>", 1)[1].split((CI / "sweep_page.js").read_text(encoding="utf-8"))[0]
    assert "<" not in data
    assert "\\u003c!--\\u003cscript>\\u003c/script>" in data
    assert html.count("<script>") == html.count("</script>") == 1


def test_runs_of_other_editions_are_counted(tmp_path):
    task = run_store.Task("x/01_good.ipynb", {}, {"cells": "now"}, "r")
    record(tmp_path / "01_good/1", 1)
    record(tmp_path / "02_other/1", 1, "02_other", "then")
    assert sweep_page.editions(results.load(tmp_path), [task]) == ""
    record(tmp_path / "01_good/2", 2, cells="then")
    said = sweep_page.editions(results.load(tmp_path), [task])
    assert said.startswith("1 runs come from other editions of a notebook")
    assert sweep_page.editions(results.load(tmp_path / "01_good/1"), []) == ""


def test_an_empty_sweep_has_a_page(tmp_path):
    sweep_page.collect([], {}, tmp_path)
    assert "Sweep: 0 runs" in (tmp_path / "index.html").read_text(encoding="utf-8")


# As much of a browser as the script asks for; what it draws is printed.
BROWSER = """
const made = [];
const node = (tag) => ({tag, attributes: {}, children: [], textContent: "", append(...c) { this.children.push(...c); },
  appendChild(c) { this.children.push(c); return c; }, setAttribute(k, v) { this.attributes[k] = String(v); }});
const byId = {};
for (const id of ["x", "y", "group", "plot", "left-out"]) byId[id] = node(id);
const document = {getElementById: id => byId[id], createElementNS: (_, tag) => node(tag),
  createElement: tag => node(tag)};
for (const id of ["x", "y", "group"]) Object.defineProperty(byId[id], "value", {get() {
  return wish[id] ?? (this.children.find(o => o.selected) || this.children[0]).textContent; }});
"""
SHOW = """
const plot = byId.plot;
console.log(JSON.stringify({texts: plot.children.filter(e => e.tag === "text").map(e => e.textContent),
  lines: plot.children.filter(e => e.tag === "polyline").map(e => [e.attributes.stroke,
    e.attributes["stroke-dasharray"]]), view: plot.attributes.viewBox, left: byId["left-out"].textContent,
  chosen: ["x", "y", "group"].map(id => byId[id].value)}));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to run the page's script")
@pytest.mark.parametrize(("groups", "shown"), [(11, 11), (40, 28)])
def test_groups_are_drawn_by_size_and_look_different(tmp_path, groups, shown):
    for group in range(groups):
        for seed in (0, 1):
            record(tmp_path / f"01_good/{group}-{seed}", seed, width=float(group) / 2)
    script = sweep_page.page(results.load(tmp_path), {}, tmp_path).split("<script>")[1].split("</script>")[0]
    program = f'const wish = {{group: "width"}};{BROWSER}{script}{SHOW}'
    done = subprocess.run(["node", "-"], input=program, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    drawn = json.loads(done.stdout)
    assert drawn["chosen"] == ["seed", "answer", "width"]
    legend = [text for text in drawn["texts"] if text.startswith("width = ")]
    # 10 after 9.5, not after 1.
    assert legend == [f"width = {group / 2:g}" for group in range(shown)]
    assert len({tuple(line) for line in drawn["lines"]}) == shown
    height = int(drawn["view"].split()[-1])
    assert height >= 40 + 20 * shown  # the last line of the legend is inside
    assert drawn["left"] == ("" if shown == groups else "The first 28 of 40 groups are drawn: group by a column with "
                             "fewer values, or sweep fewer.")
