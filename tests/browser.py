"""Drives Chromium for the tests that need it (see `tests.conditions`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a page in a new browser, whose profile is beside the file; yields its driver."""
    found = find()
    assert found is not None, MISSING
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for option in (*OPTIONS, f"user-data-dir={file.parent / 'profile'}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        driver.get(file.as_uri())
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most a minute."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 60, poll_frequency=0.05).until(lambda _: holds())


def set_width(driver: Any, width: int) -> None:
    """Give the page the width of a phone (below 500 pixels) or of a desktop."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def require_no_error_and_no_request(driver: Any) -> None:
    """Assert that nothing was logged, and that the page requested nothing but itself since it was opened."""
    assert driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    address = driver.current_url  # Chromium's own first page sends requests too
    own = [each["request"]["url"] for each in sent if each["documentURL"] == address]
    assert [url for url in own if not url.startswith("data:")] == [address]
