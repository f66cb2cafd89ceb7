"""The report opens from disk in a browser, at the width of a desk and of a telephone."""

import pytest
import torch
from planted import PLANTED, TIMES

from smpcore import diagnosis
from smpcore.diagnosis.report import write_page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    model, path = PLANTED["kinks"](0)
    file = tmp_path_factory.mktemp("page") / "why.html"
    write_page(diagnosis.why(model, path, TIMES), file, "Why <it> jerks", path(TIMES[:5]))
    return file


def test_it_is_one_file_with_everything_inside(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 3
    assert text.count("alt='") == 3
    assert "Why &lt;it&gt; jerks" in text
    assert "http" not in text
    assert "src='data:image/png;base64," in text


def test_a_curve_has_a_page_as_well(tmp_path):
    curve = torch.sin(torch.arange(0, 7, 1 / 30, dtype=torch.float64)).abs()
    write_page(diagnosis.diagnose_curve(curve, 30.0), tmp_path / "curve.html", "A curve", torch.zeros(3, 3))
    text = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "This curve shows kinks" in text
    assert "slope_variation" in text


@pytest.mark.parametrize("width", [1440, 390])
def test_it_opens_without_an_error(page, chromium, width):
    errors = []
    opened = chromium.new_page(viewport={"width": width, "height": 900})
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("requestfailed", lambda request: errors.append(request.url))
    opened.goto(page.as_uri())
    wide = opened.evaluate("document.documentElement.scrollWidth")
    loaded = opened.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    opened.close()
    assert errors == []
    assert wide <= width, "nothing has to be scrolled to from the side"
    assert loaded
