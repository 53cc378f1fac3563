"""Finds and starts Chromium for the tests that need it (see `tests.conditions`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

REQUIRED = "LMZOO_BROWSER"  # environment variable: set if the tests must run
MISSING = "no browser: apt-get install chromium chromium-driver"
OPTIONS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1200,900",
)


def find() -> tuple[str, str] | None:
    """Return the paths of Chromium (or Chrome) and its driver; None if one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start(profile: Path) -> Any:
    """Start Chromium with a new profile, which logs its console and requests; the caller must `quit` the driver."""
    found = find()
    assert found is not None, MISSING
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for option in (*OPTIONS, f"user-data-dir={profile}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(found[1]))
