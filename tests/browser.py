"""Finds Chromium, and decides about the tests that need it: they run where it is installed.

`.ci/run` installs it and sets `REQUIRED`: there, a missing browser is a failure. Elsewhere, the tests are deselected,
and the last line of the test run says so.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "LMZOO_BROWSER"  # environment variable: set if the tests must run
MISSING = "no browser: apt-get install chromium chromium-driver"


def find() -> tuple[str, str] | None:
    """Return the paths of Chromium (or Chrome) and its driver; None if one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def left_out() -> bool:
    """Return True if there is no browser, and none is required."""
    return find() is None and not os.environ.get(REQUIRED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("browser")] if left_out() else []
    if marked:
        items[:] = [item for item in items if item not in marked]
        config.hook.pytest_deselected(items=marked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left_out():
        terminalreporter.write_line(f"the tests marked `browser` were left out: {MISSING}")
