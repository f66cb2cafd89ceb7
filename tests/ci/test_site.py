"""The site: built from what is committed, and every page looked at in Chromium, wide and narrow, light and dark."""

import functools
import html
import http.server
import re
import threading
import warnings
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_site
import nbformat
import pytest
import slides
from environment import Refused
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import notebooks

pytest.importorskip("sphinx", reason="pip install -r requirements.txt brings what builds the site")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The whole site."""
    folder = tmp_path_factory.mktemp("site")
    with warnings.catch_warnings():  # Sphinx and myst-nb, of each other
        warnings.simplefilter("ignore")
        build_site.build(sorted(notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), folder)
    return folder


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served on this machine."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def pages_of(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html")
                  if not {"_static", "slides"} & set(path.relative_to(site).parts))


# What a page of the site says of itself once its formulas are set.
LOOK = """() => ({
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  formulas: document.querySelectorAll('.math').length,
  set: document.querySelectorAll('mjx-container').length,
  faulty: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
  pictures: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  nameless: [...document.querySelectorAll('article img')].filter(i => !i.alt).length,
  open: document.querySelectorAll('.bd-article details[open]').length,
  dark: getComputedStyle(document.documentElement).getPropertyValue('--pst-color-background').startsWith('#1'),
})"""


def test_every_page_wide_and_narrow_light_and_dark(site, address, chromium):
    """No error in the console, nothing from elsewhere, nothing beside the page, every formula set."""
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    faults = []
    page.on("console", lambda said: said.type == "error" and faults.append(f"{page.url}: {said.text}"))
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:"))
            or faults.append(f"{page.url} asks for {asked.url}"))
    for name in pages_of(site):
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{address}/{name}")
        page.evaluate("() => window.MathJax ? MathJax.startup.promise : null")
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_function(f"() => document.documentElement.dataset.theme === '{scheme}'")
                seen = page.evaluate(LOOK)
                where = f"{name} at {width} pixels, {scheme}"
                wanted = {"overflow": 0, "faulty": 0, "pictures": [], "nameless": 0, "open": 0,
                          "set": seen["formulas"], "dark": scheme == "dark"}
                faults += [f"{where}: {key} is {seen[key]}" for key, value in wanted.items() if seen[key] != value]
    page.close()
    assert not faults, "\n".join(faults)


def test_solutions_open_and_close(address, chromium):
    page = chromium.new_page()
    page.goto(f"{address}/course/01_measuring_smp.html")
    solution = page.locator("details", has_text="Solution").first
    code = solution.locator("pre").first
    assert not code.is_visible()
    solution.locator("summary").click()
    assert code.is_visible()
    solution.locator("summary").click()
    assert not code.is_visible()
    page.close()


@pytest.mark.parametrize("name", ["02_relu", "03_max_pooling", "06_networks", "10_smoothing"])
def test_a_slider_moves_the_figure_and_its_message(address, chromium, name):
    page = chromium.new_page()
    page.goto(f"{address}/course/{name}.html")
    page.wait_for_selector(".js-plotly-plot .slider-grip-rect")
    title, line = page.locator(".js-plotly-plot .gtitle"), page.locator(".scatterlayer .js-line").first
    before = title.text_content(), line.get_attribute("d")
    page.locator(".js-plotly-plot .slider-rail-touch-rect").first.scroll_into_view_if_needed()
    rail = page.locator(".js-plotly-plot .slider-rail-touch-rect").first.bounding_box()
    page.mouse.click(rail["x"] + 0.95 * rail["width"], rail["y"] + rail["height"] / 2)
    page.wait_for_function(f"() => document.querySelector('.js-plotly-plot .gtitle').textContent !== {before[0]!r}")
    assert line.get_attribute("d") != before[1]
    page.close()


def test_a_search_finds_pages(address, chromium):
    page = chromium.new_page()
    page.goto(f"{address}/search.html?q=Rice")
    page.wait_for_selector("#search-results li a")
    assert "ReLU" in " ".join(page.locator("#search-results li a").all_inner_texts())
    page.close()


def test_the_lecture_plan_names_figures_that_slides_show():
    """Each "00, Figure 4" of the plan is a slide of that notebook, with this number in its caption."""
    plan = (Path(build_site.__file__).parent / "site/lectures.md").read_text(encoding="utf-8")
    named = re.findall(r"\|[^|]*?\b(\d\d)(?:\]\([^)]*\))?, Figures? (\d)(?: (?:and|to) (\d))?", plan)
    assert len(named) >= 15
    for notebook in {name for name, *_ in named}:
        path, = notebooks.NOTEBOOKS.glob(f"{notebook}_*.ipynb")
        captions = re.findall(r'<p class="caption">(.*)</p>', "\n".join(slides.slides_of(nbformat.read(path, 4))))
        assert not [words for words in captions if words.endswith(":")]
        shown = set(re.findall(r"<strong>(?:Figure|Fig\.) (\d+)", " ".join(captions)))
        wanted = {number for name, *numbers in named for number in numbers if name == notebook and number}
        assert wanted <= shown, f"{path.name} has no slides of figures {wanted - shown}"


# By how much anything on the slide that is shown stands beyond its edges, in pixels.
CUT = """() => Math.max(...[...Reveal.getCurrentSlide().querySelectorAll('*')].map(e => e.getBoundingClientRect())
  .filter(r => r.width && r.height).map(r => Math.max(r.right - 1280, r.bottom - 720, -r.left, -r.top)))"""


def test_no_slide_is_cut_off(site, address, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    faults = []
    page.on("console", lambda said: said.type == "error" and faults.append(f"{page.url}: {said.text}"))
    page.on("request", lambda asked: asked.url.startswith((address, "data:"))
            or faults.append(f"{page.url} asks for {asked.url}"))
    decks = sorted((site / "slides").glob("*.html"))
    assert len(decks) == len(list(notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))
    for deck in decks:
        page.goto(f"{address}/slides/{deck.name}")
        page.evaluate("() => MathJax.startup.promise")
        count = page.evaluate("() => Reveal.getTotalSlides()")
        if count < 2:
            faults.append(f"{deck.name}: {count} slides")
        for number in range(count):
            page.evaluate(f"() => Reveal.slide({number})")
            beyond = page.evaluate(CUT)
            if beyond > 1:
                faults.append(f"{deck.name}, slide {number + 1}: {beyond:.0f} pixels are cut off")
    page.close()
    assert not faults, "\n".join(faults)


def test_links_hold(site):
    """Links within the site lead to a file, and to a place in it."""
    read = {name: (site / name).read_text(encoding="utf-8") for name in pages_of(site)}
    places = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in read.items()}
    broken, inside = [], 0
    for name, text in read.items():
        for reference in map(html.unescape, re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', text)):
            link = urlsplit(reference)
            if link.scheme or link.netloc:
                continue
            inside += 1
            target = (site / name).parent / unquote(link.path) if link.path else site / name
            if not target.is_file():
                broken.append(f"{name}: {reference}")
            elif link.fragment and target.suffix == ".html":
                place = places[target.resolve().relative_to(site.resolve()).as_posix()]
                if unquote(link.fragment) not in place:
                    broken.append(f"{name}: {reference}")
    assert inside > 100
    assert not broken, "\n".join(sorted(set(broken)))


def test_the_site_is_small_and_complete(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 60_000_000
    for notebook in notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        assert (site / "course" / f"{notebook.stem}.html").is_file()
    for room in build_site.rooms():
        assert (site / "reference" / f"{room}.html").is_file()
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert gallery.count("<figure") == len(list(notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))


def test_a_page_folds_solutions_and_names_figures():
    page = build_site.page_of(new_notebook(cells=[
        new_code_cell("figure()", metadata={"tags": ["main-figure"]}),
        new_markdown_cell("**Figure 1.** A *curve* of $x$; see [02](02_relu.ipynb).\n\nMore."),
        new_code_cell("answer()", metadata={"tags": ["solution"]}),
        new_markdown_cell("Because.", metadata={"tags": ["solution"]})]))
    figure, _, solution, words = page.cells
    assert figure.metadata["mystnb"]["image"]["alt"] == "Figure 1. A curve of x; see 02."
    assert "hide-cell" in solution.metadata["tags"]
    assert words.source.startswith("<details")


def test_the_glossary_is_the_readmes():
    table = "| word | what it means |\n|---|---|\n| SMP | Σ\\|jump\\| |\n| kink | a corner |\n"
    page = build_site.glossary(f"## Glossary\n\n{table}")
    assert "SMP\n: Σ|jump|\n\nkink\n: a corner" in page


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "work.txt").write_text("mine")
    with pytest.raises(Refused, match="it holds something other than a site"):
        build_site.build([], tmp_path)
    assert (tmp_path / "work.txt").read_text() == "mine"


def test_a_page_with_a_fault_is_refused(tmp_path, monkeypatch, capfd):
    notebook = new_notebook(cells=[new_markdown_cell("# Title\n\n[nowhere](99_nowhere.ipynb)")])
    nbformat.write(notebook, tmp_path / "01_case.ipynb")
    monkeypatch.setattr(build_site, "rooms", dict)
    with pytest.raises(Refused, match="the site has faults: Sphinx names them above"):
        build_site.build([tmp_path / "01_case.ipynb"], tmp_path / "site")
    assert "99_nowhere" in capfd.readouterr().err


def test_without_its_tools_the_site_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sphinx.cmd.build", None)
    with pytest.raises(Refused, match=r"requirements\.txt brings what builds the site"):
        build_site.build([], Path(tmp_path) / "site")
