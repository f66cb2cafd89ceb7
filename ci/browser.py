"""The browser that the site is tried in: a Chromium of the system, driven by playwright."""

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET = "no Chromium is installed (Debian: apt-get install chromium; GitHub's Ubuntu has google-chrome)"
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync")


def program() -> str | None:
    """Where Chromium is, or None."""
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)
