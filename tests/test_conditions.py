"""Tests that tests of what a machine lacks are left out visibly, and fail where they are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import browser, conditions, conftest

ROOT = Path(__file__).parent.parent
CODE = """
import pytest
from tests import browser, gpu

@pytest.mark.browser
def test_needs_a_browser():
    assert browser.find() is not None, browser.MISSING

@pytest.mark.gpu
def test_needs_a_gpu():
    assert gpu.is_here(), gpu.MISSING

def test_needs_nothing():
    pass
"""


def run(folder: Path, **environment: str) -> str:
    """Run pytest with the hooks of conftest.py alone, where no program and no GPU is found."""
    assert conftest.pytest_collection_modifyitems is conditions.pytest_collection_modifyitems
    assert conftest.pytest_terminal_summary is conditions.pytest_terminal_summary
    (folder / "test_it.py").write_text(CODE)
    options = [
        "-p",
        "tests.conditions",
        "-p",
        "no:cacheprovider",
        "-o",
        "markers=browser\ngpu",
        "--rootdir",
        str(folder),
    ]
    required = [condition.required for condition in conditions.CONDITIONS.values()]
    known = {**{key: value for key, value in os.environ.items() if key not in required}, **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=ROOT,
        env={**known, "PATH": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    ).stdout


def test_left_out_tests_are_named(tmp_path: Path) -> None:
    output = run(tmp_path)
    assert "1 passed, 2 deselected" in output
    assert "the tests marked `browser` were left out: no browser: apt-get install chromium chromium-driver" in output
    assert "the tests marked `gpu` were left out: no GPU with fla-core: pip install 'lmzoo[gpu]'" in output


def test_required_tests_fail_where_something_is_missing(tmp_path: Path) -> None:
    output = run(tmp_path, **{condition.required: "1" for condition in conditions.CONDITIONS.values()})
    assert "2 failed, 1 passed" in output
    for marker, condition in conditions.CONDITIONS.items():
        assert f"AssertionError: {condition.missing}" in output
        assert f"the tests marked `{marker}` were left out" not in output


def test_left_out_asks_for_each_marker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {marker: each._replace(is_here=lambda: False) for marker, each in conditions.CONDITIONS.items()}
    monkeypatch.setattr(conditions, "CONDITIONS", absent)
    for condition in absent.values():
        monkeypatch.delenv(condition.required, raising=False)
    for marker, condition in absent.items():
        with monkeypatch.context() as patch:
            patch.setenv(condition.required, "1")
            assert marker not in conditions.left_out()
            assert len(conditions.left_out()) == len(absent) - 1


def test_find_needs_browser_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("google-chrome", "chromedriver"):
        assert browser.find() is None
        (tmp_path / name).touch(mode=0o755)
    assert browser.find() == (str(tmp_path / "google-chrome"), str(tmp_path / "chromedriver"))
