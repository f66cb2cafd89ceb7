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
    assert "<button title='of &lt;every&gt; &#x27;draw&#x27;'>seed</button></th>" in html
    assert "<dt>seed</dt><dd>of &lt;every&gt; &#x27;draw&#x27;</dd>" in html  # for those who have no pointer
    assert "<a href='01_good/1/01_good.ipynb'>notebook</a>" in html
    assert str(tmp_path) not in html, "a page shows no place of the machine that made it"
    assert "failed: 01_good {&#x27;seed&#x27;: 9}: RuntimeError: &lt;b&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


def test_words_cannot_end_or_hide_the_script(tmp_path):
    record(tmp_path / "01_good/1", 1, name="<!--<script></script>")
    html = sweep_page.page(results.load(tmp_path), {}, tmp_path)
    data = html.split("<script>", 1)[1].split((CI / "sweep_page.js").read_text(encoding="utf-8"))[0]
    assert "<" not in data
    assert "\\u003c!--\\u003cscript>\\u003c/script>" in data
    assert html.count("<script>") == html.count("</script>") == 1


def test_long_values_fold(tmp_path):
    record(tmp_path / "01_good/1", 1, sizes=list(range(100, 140)))
    html = sweep_page.page(results.load(tmp_path), {}, tmp_path)
    assert "<details><summary>[100, 101, 102, 103, 104, 105, 1 …</summary>[100, 101" in html


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
  createElement: tag => node(tag), querySelectorAll: () => []};
for (const id of ["x", "y", "group"]) Object.defineProperty(byId[id], "value", {get() {
  return wish[id] ?? (this.children.find(o => o.selected) || this.children[0]).textContent; }});
"""
SHOW = """
const plot = byId.plot;
console.log(JSON.stringify({texts: plot.children.filter(e => e.tag === "text").map(e => e.textContent),
  lines: plot.children.filter(e => e.tag === "polyline").map(e => [e.attributes.stroke,
    e.attributes["stroke-dasharray"]]), view: plot.attributes.viewBox,

  bars: plot.children.filter(e => e.tag === "line" && e.attributes["stroke-width"] === "3").length,
  left: byId["left-out"].textContent,
  chosen: ["x", "y", "group"].map(id => byId[id].value)}));
"""


def drawn_by(script, wish):
    done = subprocess.run(["node", "-"], input=f"const wish = {wish};{BROWSER}{script}{SHOW}", capture_output=True,
                          encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to run the page's script")
def test_the_seed_is_an_axis_only_where_nothing_else_varies(tmp_path):
    for seed in (0, 1, 2):
        record(tmp_path / f"a/01_good/{seed}", seed)
        for width in (10, 20, 30):
            record(tmp_path / f"b/01_good/{width}-{seed}", seed, width=width, depth=width // 20)
    for name, chosen in (("a", ["seed", "answer", ""]), ("b", ["width", "answer", "depth"])):
        script = sweep_page.page(results.load(tmp_path / name), {}, tmp_path).split("<script>")[1].split("</script>")[0]
        drawn = drawn_by(script, "{}")
        assert drawn["chosen"] == chosen
    ticks = [text for text in drawn["texts"] if text.isdigit()]
    assert {"10", "20", "30"} <= set(ticks)  # round values, of the widths
    assert drawn["bars"] == 3  # the mean over seeds and its standard error, at each width


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to run the page's script")
@pytest.mark.parametrize(("groups", "shown"), [(11, 11), (40, 28)])
def test_groups_are_drawn_by_size_and_look_different(tmp_path, groups, shown):
    for group in range(groups):
        for seed in (0, 1):
            record(tmp_path / f"01_good/{group}-{seed}", seed, width=float(group) / 2)
    script = sweep_page.page(results.load(tmp_path), {}, tmp_path).split("<script>")[1].split("</script>")[0]
    drawn = drawn_by(script, '{x: "seed", group: "width"}')
    assert drawn["chosen"] == ["seed", "answer", "width"]
    legend = [text for text in drawn["texts"] if text.startswith("width = ")]
    # 10 after 9.5, not after 1.
    assert legend == [f"width = {group / 2:g}" for group in range(shown)]
    assert len({tuple(line) for line in drawn["lines"]}) == shown
    height = int(drawn["view"].split()[-1])
    assert height >= 40 + 20 * shown  # the last line of the legend is inside
    assert drawn["left"] == ("" if shown == groups else "The first 28 of 40 groups are drawn: group by a column with "
                             "fewer values, or sweep fewer.")


def test_a_page_on_a_phone_and_in_the_dark_sorted_by_click_and_by_key(tmp_path, chromium):
    for seed, width in ((3, 10), (1, 20), (2, 10), (0, 20)):
        record(tmp_path / f"01_good/{width}-{seed}", seed, width=width, sizes=list(range(50)))
    _, _, html = sweep_page.collect([], failures(), tmp_path)
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    said = []
    page.on("console", lambda message: message.type == "error" and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(html.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light dark"
    # The plot's letters are as large as the page's, or nearly so.
    assert page.evaluate("document.querySelector('svg text').getBoundingClientRect().height") > 12
    seeds = "() => [...document.querySelectorAll('tbody tr')].map(r => r.cells[1].textContent)"
    assert page.locator("th").nth(1).inner_text().startswith("seed")
    page.locator("th button").nth(1).click()
    assert page.evaluate(seeds) == ["0", "1", "2", "3"]
    page.locator("th button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(seeds) == ["3", "2", "1", "0"]
    page.set_viewport_size({"width": 1440, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == 1440
    page.close()
    assert not said
