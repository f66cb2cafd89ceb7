"""What the README shows is there, and what it says to type works."""

import contextlib
import re
from pathlib import Path

import pytest
import torch

from smpcore import attribute, models, paths, plotting, trace_line, tracing, units

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_run(capsys):
    lines = re.search(r"```python\n(.*?)```", README, re.S)[1]
    first, second = models.reference_line()
    exec(lines, {"model": models.reference_cnn(), "first_input": first, "second_input": second})
    printed = capsys.readouterr().out
    assert "2:max_pool2d" in printed
    assert float(re.search(r"tensor\(\[([0-9.]+)", printed)[1]) == pytest.approx(models.REFERENCE_SMP, rel=0.01)
    assert len([line for line in lines.splitlines() if line.strip()]) <= 6  # two imports and four lines


def test_what_a_trace_is_good_for_runs(capsys):
    section = README[README.index("## What a trace is good for"):]
    blocks = re.findall(r"```python\n(.*?)```", section[:section.index("\n## ", 3)], re.S)
    model = models.cnn((1, 6, 6), channels=4, depth=1, pooling="max")
    baseline, picture, one_side, other_side = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    names = {"model": model, "baseline": baseline, "picture": picture, "one_side": one_side, "other_side": other_side,
             "tracing": tracing, "trace_line": trace_line, "plotting": plotting, "axis": plotting.plt.subplots()[1]}
    assert len(blocks) == 3
    for block in blocks:
        assert len(block.splitlines()) == 2
        exec(block, names)
    with torch.no_grad():
        change = (model(picture[None].double()) - model(baseline[None].double())).item()
    assert float(names["shares"].sum()) == pytest.approx(change, abs=1e-9)
    assert float(names["error"][0]) > 0
    assert names["found"].value > 0
    assert "1:relu" in capsys.readouterr().out
    assert names["plane"].certified


def test_the_notebook_of_the_readme_runs_and_keeps_to_the_contract_of_parameters(tmp_path):
    import runner
    from nbformat import write
    from nbformat.v4 import new_code_cell, new_notebook

    import notebooks

    section = README[README.index("## Add a notebook"):]
    code = re.search(r"```python\n(.*?)```", section, re.S)[1]
    assert len([line for line in code.splitlines() if line.strip() and line != "# %%"]) <= 10
    first, second = code.split("# %%\n")
    cells = [new_code_cell(first.strip(), metadata={"tags": ["parameters"]}), new_code_cell(second.strip())]
    assert notebooks._parameters(cells, [0]) == []
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / re.search(r"mine/(\w+\.ipynb)", section)[1]
    write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    outcome = runner.execute_one(path, {"samples": 1001}, tmp_path / "out", 1, str(tmp_path))
    assert outcome.error == ""
    assert outcome.record["results"]["smp"] == pytest.approx(1, abs=1e-9)  # one kink, from slope 0 to slope 1


def test_every_room_and_command_is_in_the_readme():
    box = README[README.index("## What is in the box"):README.index("## The notebooks")]
    missing = [path.name for path in (ROOT / "smpcore").iterdir() if (path / "__init__.py").is_file()
               and f"`{path.name}/`" not in box]
    # Benchmarks have lines of their own below.
    missing += [path.name for path in (ROOT / "ci").glob("*.py") if f"`{path.name}`" not in box
                and not path.name.startswith("benchmark_")]
    assert not missing


def test_what_decides_is_where_the_readme_says():
    box = README[README.index("| where is … decided?"):README.index("## The notebooks")]
    named = re.findall(r"`([\w/]+\.py)`", box[:box.index("\n\n")])
    assert len(named) >= 10
    assert not [name for name in named if not any((ROOT / base / name).is_file() for base in ("smpcore", ""))]


def test_the_glossary_has_the_words():
    rows = re.findall(r"^\| ([\w ]+) \| ", README[README.index("## Glossary"):], re.M)[1:]
    assert set(rows) == {"unit", "switch", "kink", "jump", "gain", "slope", "path", "piece", "knot", "winner", "gate",
                         "source", "background", "lag", "SMP"}


def test_the_cure_in_five_lines(capsys):
    lines = re.search(r"## The cure in five lines\n.*?```python\n(.*?)```", README, re.S)[1]
    assert len([line for line in lines.splitlines() if line.strip()]) == 5  # with the import
    ends = models.reference_line()
    inputs = torch.stack([ends[0] + share * (ends[1] - ends[0]) for share in torch.rand(40, dtype=torch.float64)])
    exec(lines, {"model": models.reference_cnn(), "path": paths.line(*ends), "inputs": inputs, "attribute": attribute,
                 "times": torch.linspace(0, 1, 101, dtype=torch.float64)})
    printed = capsys.readouterr().out
    assert "Suggestion: make " in printed
    assert "made smooth: " in printed


@contextlib.contextmanager
def example(section):
    """The lines of Python that a section shows, which are at most ten, imports and blank ones aside."""
    lines = re.search(rf"## {section}\n.*?```python\n(.*?)```", README, re.S)[1]
    held = [line for line in lines.splitlines() if line.strip() and "import" not in line]
    assert len(held) <= 10
    names, before = {}, dict(units.TABLE)
    try:
        exec(lines, names)
        yield names
    finally:
        units.TABLE.clear()
        units.TABLE.update(before)  # other tests have a unit of the same name


def test_a_unit_is_added():
    with example("Add a unit") as names:
        torch.manual_seed(0)
        model = torch.nn.Sequential(*names["layers"]).double()
        start, end = torch.randn(2, 8, dtype=torch.float64)
        path, times = names["paths"].line(start, end), torch.linspace(0, 1, 2001, dtype=torch.float64)
        found = names["attribute"](model, path, times)
        assert [layer.name for layer in found.layers] == ["1:shifted_leaky"]
        trace = names["trace_line"](model, start, end)
        assert trace.certified
        torch.testing.assert_close(found.total, trace.smp, rtol=0.01, atol=0)
        guess = names["propagation"].predict_network(model, path, times)
        assert [(layer.name, layer.kind) for layer in guess.layers] == [("1:shifted_leaky", "shifted leaky")]
        given = names["propagation"].Statistics.exact(0.0, torch.eye(8), torch.eye(8), 10.0)
        behind = names["propagation"].propagate(model[:2], given)
        # Rice's formula at -1, for the standard deviations of the first layer's outputs.
        var = (model[0].weight.detach() ** 2).sum(1)
        level = (-1 - model[0].bias.detach()) ** 2 / (2 * var)
        torch.testing.assert_close(behind.smp, 0.8 * 10 * (var / (2 * torch.pi)).sqrt() * torch.exp(-level))


def test_a_layer_is_added_to_the_predictions():
    with example("Add a layer to the predictions") as names:
        propagation = names["propagation"]
        given = propagation.Statistics.exact(0.0, torch.eye(2), torch.eye(2), 1.0, smp=2.0)
        behind = propagation.propagate(names["Scale"](), given)
        assert behind.smp.tolist() == [6.0, 6.0]
        assert behind.var.tolist() == [9.0, 9.0]


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert len(links) > 5
    assert not missing


def test_the_picture_is_small_and_is_the_notebooks(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    import figure

    kept, fresh = ROOT / "notebooks" / "figures" / "start_here.png", figure.write(figure=tmp_path / "again.png")
    assert kept.stat().st_size < 100_000
    assert image.open(kept).size == image.open(fresh).size
    empty = tmp_path / "empty.ipynb"
    empty.write_text('{"cells": []}')
    with pytest.raises(ValueError, match=r"empty\.ipynb has no figure in a cell tagged main-figure"):
        figure.main_figure(empty)
