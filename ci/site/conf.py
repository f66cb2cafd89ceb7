"""How Sphinx builds the site; `ci/build_site.py` lays out the pages and calls it."""

import importlib.util
import re
import shutil
from pathlib import Path

project, author = "smpcore", "the authors of smpcore"
copyright = "the authors of smpcore, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
templates_path, html_static_path = [], ["_static"]

# Pages show the outputs that are committed; nothing is executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "smpcore"
html_favicon = "_static/favicon.svg"
html_css_files = ["course.css"]
html_copy_source = html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_prev_next": True, "secondary_sidebar_items": ["page-toc"], "navigation_with_keys": False,
    "footer_start": ["copyright"], "footer_end": [], "show_toc_level": 2, "header_links_before_dropdown": 6,
    "navbar_align": "left", "search_bar_text": "Search the course", "pygments_light_style": "default",
    "pygments_dark_style": "monokai",
}
# MathJax of our own, so that formulas are set without a network.
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}


def _bring_mathjax(app):
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    for part in ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts"):
        there = Path(app.outdir) / "_static" / "mathjax" / part
        there.parent.mkdir(parents=True, exist_ok=True)
        if (package / part).is_dir():
            shutil.copytree(package / part, there, dirs_exist_ok=True)
        else:
            shutil.copyfile(package / part, there)


def _magnitudes(app, what, name, obj, options, lines):
    """In a docstring |x| is a magnitude, and *args is no emphasis: neither is markup, but in what is marked as code."""
    for place, line in enumerate(lines):
        parts = re.split(r"(``.*?``|`.*?`)", line)
        parts[::2] = [re.sub(r"\||(?<!\*)\*(?=[a-z])(?![^*]*\w\*)", r"\\\g<0>", part) for part in parts[::2]]
        lines[place] = "".join(parts)


def _leave_out(app, what, name, obj, skip, options):
    """The fields of a named tuple stand in its docstring already."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app):
    """What Sphinx calls."""
    app.connect("autodoc-skip-member", _leave_out)
    app.connect("builder-inited", _bring_mathjax)
    app.connect("autodoc-process-docstring", _magnitudes, priority=900)  # after numpydoc
