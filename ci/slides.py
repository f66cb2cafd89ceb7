"""Slides from the notebooks: each figure with its message, each formula with the sentence before it, the summary."""

import html
import importlib.util
import re
import shutil
from pathlib import Path

import nbformat
from page_parts import pngs_of
from report_page import caption_of, title_of, why_of

TEMPLATES = Path(__file__).resolve().parent


def sentences(text: str, most: int) -> str:
    """The first sentences of a text, as many as ``most`` characters hold, but at least one."""
    parts, kept = re.split(r"(?<=[.?!])\s+(?=[A-Z*$])", " ".join(text.split())), ""
    for part in parts:
        if kept and len(kept) + len(part) > most:
            break
        kept += f" {part}"
    return kept.strip()


def formulas(source: str):
    """Each displayed formula of a text, with the paragraph before it."""
    blocks = source.split("\n\n")
    for place, block in enumerate(blocks):
        if block.startswith("$$"):
            before = blocks[place - 1] if place and not blocks[place - 1].startswith(("$$", "#")) else ""
            yield " ".join(before.split()), block


def slides_of(notebook) -> list[str]:
    """The slides of a notebook, as Markdown: title, figures, formulas, summary; no code."""
    found, heading = [f"# {title_of(notebook)}\n\n{sentences(why_of(notebook), 500)}"], ""
    for place, cell in enumerate(notebook.cells[1:], 1):
        tags = set(cell.metadata.get("tags", []))
        if tags & {"exercise", "solution", "check"}:
            continue
        if cell.cell_type == "markdown":
            for line in re.findall(r"^#+ (.+)$", cell.source, re.M)[-1:]:
                heading = line
            if heading.lower() == "summary":
                points = re.findall(r"^- (.+)$", cell.source, re.M)
                for start in range(0, len(points), 4):
                    found.append("## Summary\n\n" + "\n".join(f"- {point}" for point in points[start:start + 4]))
            elif heading.lower() not in ("references", "notation", "exercises"):
                found += [f"## {heading}\n\n{sentences(before, 420)}\n\n{formula}"
                          for before, formula in formulas(cell.source)]
            continue
        for png in pngs_of(cell):
            words = caption_of(notebook.cells, place)
            number = re.match(r"(?:(?:Figure|Fig\.) \S+ )?", words)[0]
            shown = html.escape(sentences(words.removeprefix(number), 230))
            found.append(f"## {heading}\n\n<img alt=\"{html.escape(words)}\" src=\"data:image/png;base64,{png}\">\n"
                         f"<p class=\"caption\"><strong>{number}</strong>{shown}</p>")
    return found


def write(name: str, notebook, folder: Path) -> Path:
    """The deck of a notebook, ``NAME.html``, in the folder ``slides`` of a site."""
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    cells = [nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}})
             for text in slides_of(notebook)]
    deck = nbformat.v4.new_notebook(cells=cells, metadata={"title": title_of(notebook)})
    exporter = SlidesExporter(template_name="slides_template", extra_template_basedirs=[str(TEMPLATES)],
                              config=Config({"SlidesExporter": {"reveal_url_prefix": "../_static/reveal",
                                                                "reveal_theme": "../../../slides"}}))
    page, _ = exporter.from_notebook_node(deck)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder / f"{name}.html"


def bring_reveal(site: Path) -> None:
    """Copy the program that shows the slides into the site: reveal.js, from the package sphinx-revealjs."""
    package = Path(importlib.util.find_spec("sphinx_revealjs").origin).parent / "_static" / "revealjs" / "dist"
    for part in ("reveal.js", "reveal.css"):
        there = site / "_static" / "reveal" / "dist" / part
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / part, there)
