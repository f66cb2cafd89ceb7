"""The course as a web site: pages from the executed notebooks, the docstrings and the README's glossary.

`python3 ci/run.py --site` builds it. Nothing is executed, and nothing is fetched: the pages open without a network.
"""

import ast
import base64
import html
import importlib.util
import re
import shutil
import tempfile
from pathlib import Path

import environment
import nbformat
import slides
import student
from environment import Refused
from report_page import caption_of, main_figure, title_of, why_of

SOURCES = Path(__file__).resolve().parent / "site"
PLOTLY = "application/vnd.plotly.v1+json"
PACKAGE = environment.ROOT / "smpcore"


def page_of(notebook):
    """A notebook as the site shows it: solutions behind a click, figures with their captions as alternative texts."""
    page = nbformat.from_dict(notebook)
    for place, cell in enumerate(page.cells):
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and cell.cell_type == "code":
            cell.metadata["tags"] = [*tags, "hide-cell"]
        elif "solution" in tags:
            cell.source = ("<details class=\"solution\"><summary>Solution, in words</summary>\n\n"
                           f"{cell.source}\n\n</details>")
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("(../README.md#glossary)", "(../glossary.md)")
        if cell.cell_type == "code":
            cell.metadata["mystnb"] = {"image": {"alt": caption_of(page.cells, place) or "a figure of this section"}}
            for output in cell.outputs:
                if PLOTLY in output.get("data", {}):
                    output["data"] = {"text/html": slider(output["data"][PLOTLY], f"{cell.id}-{place}")}
            if "solution" in tags:
                cell.metadata["mystnb"].update(code_prompt_show="Solution", code_prompt_hide="Hide the solution")
    return page


def slider(figure: dict, name: str) -> str:
    """A figure with a slider, its values computed when the notebook ran, as a part of a page."""
    import plotly.io
    return plotly.io.to_html(figure, include_plotlyjs="../_static/plotly.min.js", full_html=False, div_id=name,
                             auto_play=False,  # the page opens on the figure as the notebook drew it
                             # It is drawn before the page's columns have their widths, and then resized to its column.
                             post_script="new ResizeObserver(() => Plotly.Plots.resize('{plot_id}'))"
                                         ".observe(document.getElementById('{plot_id}'));",
                             config={"responsive": True, "displayModeBar": False}, validate=False)


def front_of(notebook) -> tuple[str, str]:
    """A notebook's title, and the first sentence that says why it matters."""
    return title_of(notebook), re.split(r"(?<=[.?!])\s", why_of(notebook))[0]


def in_order(notebooks: dict) -> dict:
    """The notebooks in the order of their links: each after the one that links to it as next; unlinked ones last."""
    ordered, name = [], next(iter(notebooks), None)
    while name in notebooks and name not in ordered:
        ordered.append(name)
        found = re.search(r"Next: \[[^]]*\]\((\w+)\.ipynb\)", notebooks[name].cells[0].source)
        name = found.group(1) if found else None
    return {name: notebooks[name] for name in [*ordered, *(name for name in notebooks if name not in ordered)]}


def gallery_of(name: str, notebook, folder: Path) -> str:
    """The main figure of a notebook, stored in ``folder``, as an entry of the gallery; "" where it has none."""
    figure, caption = main_figure(notebook)
    if not figure:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(base64.b64decode(figure))
    words, title, page = html.escape(caption), html.escape(title_of(notebook)), f"course/{name}.html"
    return (f'<figure><a href="{page}"><img loading="lazy" src="_static/gallery/{name}.png" alt="{words}"></a>'
            f'<figcaption><a href="{page}">{name[:2]} {title}</a><br>{words}</figcaption></figure>')


def glossary(readme: str) -> str:
    """The page of the README's glossary: a definition list."""
    table = readme.split("## Glossary", 1)[1]
    rows = re.findall(r"^\| (?!word|---)(.+?) \| (.+) \|$", table, re.M)
    entries = "\n\n".join(f"{word}\n: {meaning}" for word, meaning in rows).replace("\\|", "|")
    return f"# Glossary\n\nOne word for one thing, in the code as in the notebooks.\n\n{entries}\n"


def rooms() -> dict[str, str]:
    """The packages of `smpcore` with names of their own to use, each with the first sentence of its docstring."""
    found = {}
    for init in sorted(PACKAGE.glob("*/__init__.py")):
        text = init.read_text(encoding="utf-8")
        if "__all__" in text:
            found[init.parent.name] = " ".join(ast.get_docstring(ast.parse(text)).split("\n\n")[0].split())
    return found


def lay_out(paths: list[Path], folder: Path) -> None:
    """The pages' sources: what stands in `ci/site`, the notebooks, the reference, the glossary and the gallery."""
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    for place in ("_static", "course"):
        shutil.copytree(environment.ROOT / "notebooks" / "figures", folder / place / "figures")
    notebooks = in_order({path.stem: nbformat.read(path, as_version=4) for path in paths})
    (folder / "reference").mkdir()
    for name, notebook in notebooks.items():
        nbformat.write(page_of(notebook), folder / "course" / f"{name}.ipynb")
    listed = "\n".join(f"| [{name[:2]} {front_of(notebook)[0]}]({name}.ipynb) | {front_of(notebook)[1]} "
                       f'| <a href="../slides/{name}.html">slides</a> |'
                       for name, notebook in notebooks.items())
    (folder / "course/index.md").write_text(
        "# The course\n\nIn this order; each notebook says at its top what to know before, and how long it takes. "
        "Solutions stand behind a click.\n\n[Download all of them for students](../_static/student.zip), without "
        f"solutions, with checks of the answers.\n\n| notebook | why it matters | |\n|---|---|---|\n{listed}\n\n"
        + toctree(f"{name[:2]} {front_of(notebook)[0]} <{name}>" for name, notebook in notebooks.items()),
        encoding="utf-8")
    student.write(paths, folder.parent / "student")
    shutil.make_archive(str(folder / "_static/student"), "zip", folder.parent / "student")
    entries = [gallery_of(name, notebook, folder / "_static/gallery") for name, notebook in notebooks.items()]
    (folder / "gallery.md").write_text('# Gallery\n\nThe main figure of every notebook.\n\n<div class="gallery">\n'
                                       + "\n".join(entries) + "\n</div>\n", encoding="utf-8")
    plotly = Path(importlib.util.find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"
    shutil.copyfile(plotly, folder / "_static" / "plotly.min.js")
    readme = (environment.ROOT / "README.md").read_text(encoding="utf-8")
    (folder / "glossary.md").write_text(glossary(readme), encoding="utf-8")
    listed = "\n".join(f"| [{name}]({name}.rst) | {about} |" for name, about in rooms().items())
    (folder / "reference/index.md").write_text(
        f"# Reference\n\nThe package, room by room.\n\n| room | what it is for |\n|---|---|\n{listed}\n\n"
        + toctree(rooms()), encoding="utf-8")
    for name in rooms():
        title = f"smpcore.{name}"
        (folder / f"reference/{name}.rst").write_text(
            f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n   :members:\n", encoding="utf-8")


def toctree(names) -> str:
    """The menu of a section, which its page itself does not show."""
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def build(paths: list[Path], output: Path) -> Path:
    """Build the site in an emptied folder; returns its first page.

    Raises
    ------
    Refused
        For a folder that holds something else, and where a page cannot be built: with Sphinx's own words.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / "objects.inv").is_file():
        raise Refused(f"--site --output {output}: it holds something other than a site; name another folder")
    try:
        from sphinx.cmd.build import build_main
    except ImportError as error:
        raise Refused(f"{error}: pip install -r requirements.txt brings what builds the site") from error
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        lay_out(paths, source)
        shutil.rmtree(output, ignore_errors=True)
        code = build_main(["-q", "-b", "html", "-W", "--keep-going", "-j", "auto", "-d", f"{folder}/doctrees",
                           str(source), str(output)])
        if code:
            raise Refused(f"the site has faults: Sphinx names them above; what was built is in {output}")
    slides.bring_reveal(output)
    for path in paths:
        slides.write(path.stem, nbformat.read(path, as_version=4), output / "slides")
    return output / "index.html"
