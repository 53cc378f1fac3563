"""Finds Chromium for the tests that need it (see `tests.conditions`)."""

from __future__ import annotations

import shutil

REQUIRED = "LMZOO_BROWSER"  # environment variable: set if the tests must run
MISSING = "no browser: apt-get install chromium chromium-driver"


def find() -> tuple[str, str] | None:
    """Return the paths of Chromium (or Chrome) and its driver; None if one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None
