"""Tests that tests of what a machine lacks are left out visibly, and fail where they are required."""

from __future__ import annotations

import json
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


# Each run is a fork of one process, which imports torch once. Their outputs go to files.
RUNS = """
import json, os, sys
import pytest
import tests.conditions
for number, variables in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        os.environ.update(variables)
        with open(f"{number}.txt", "w") as file:
            os.dup2(file.fileno(), 1)
            pytest.main(sys.argv[2:])
            sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Run pytest with the hooks of conftest.py alone, where no program and no GPU is found: as usual, and required."""
    assert conftest.pytest_collection_modifyitems is conditions.pytest_collection_modifyitems
    assert conftest.pytest_terminal_summary is conditions.pytest_terminal_summary
    folder = tmp_path_factory.mktemp("conditions")
    (folder / "test_it.py").write_text(CODE)
    options = ["-p", "tests.conditions", "-p", "no:cacheprovider", "-o", "markers=browser\ngpu"]
    options += ["--rootdir", str(folder), str(folder)]
    required = [condition.required for condition in conditions.CONDITIONS.values()]
    known = {key: value for key, value in os.environ.items() if key not in required}
    known |= {"PATH": str(folder), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    known |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    both = json.dumps([{}, dict.fromkeys(required, "1")])
    subprocess.run([sys.executable, "-c", RUNS, both, *options], cwd=folder, env=known, check=True)
    return (folder / "0.txt").read_text(), (folder / "1.txt").read_text()


def test_left_out_tests_are_named(outputs: tuple[str, str]) -> None:
    output, _ = outputs
    assert "1 passed, 2 deselected" in output
    assert "the tests marked `browser` were left out: no browser: apt-get install chromium chromium-driver" in output
    assert "the tests marked `gpu` were left out: no GPU with fla-core: pip install 'lmzoo[gpu]'" in output


def test_required_tests_fail_where_something_is_missing(outputs: tuple[str, str]) -> None:
    _, output = outputs
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
