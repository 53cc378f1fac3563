"""Tests that tests of a browser are left out visibly where there is none, and fail where one is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import browser, conftest

ROOT = Path(__file__).parent.parent
CODE = """
import pytest
from tests import browser

@pytest.mark.browser
def test_needs_one():
    assert browser.find() is not None, browser.MISSING

def test_needs_none():
    pass
"""


def run(folder: Path, **environment: str) -> str:
    """Run pytest with the hooks of conftest.py alone, where no program is found."""
    assert conftest.pytest_collection_modifyitems is browser.pytest_collection_modifyitems
    assert conftest.pytest_terminal_summary is browser.pytest_terminal_summary
    (folder / "test_it.py").write_text(CODE)
    options = ["-p", "tests.browser", "-p", "no:cacheprovider", "-o", "markers=browser", "--rootdir", str(folder)]
    known = {**{key: value for key, value in os.environ.items() if key != browser.REQUIRED}, **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=ROOT,
        env={**known, "PATH": str(folder)},
        capture_output=True,
        text=True,
    ).stdout


def test_left_out_tests_are_named(tmp_path: Path) -> None:
    output = run(tmp_path)
    assert "1 passed, 1 deselected" in output
    assert "the tests marked `browser` were left out: no browser: apt-get install chromium chromium-driver" in output


def test_required_tests_fail_without_a_browser(tmp_path: Path) -> None:
    output = run(tmp_path, **{browser.REQUIRED: "1"})
    assert "1 failed, 1 passed" in output
    assert "AssertionError: no browser: apt-get install chromium chromium-driver" in output
    assert "left out" not in output


def test_find_needs_browser_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("google-chrome", "chromedriver"):
        assert browser.find() is None
        (tmp_path / name).touch(mode=0o755)
    assert browser.find() == (str(tmp_path / "google-chrome"), str(tmp_path / "chromedriver"))
