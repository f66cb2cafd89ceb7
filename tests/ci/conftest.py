"""A real browser, where the system has one."""

import browser
import pytest


@pytest.fixture(scope="session")
def chromium():
    """A Chromium without windows."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    if browser.program() is None:
        pytest.skip(browser.HOW_TO_GET)
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser.program(), args=list(browser.OPTIONS))
        yield opened
        opened.close()
