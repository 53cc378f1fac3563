"""The table of `scripts/test --durations-by-family`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest, durations
from tests.durations import FamilyDurations, family_of


@pytest.mark.parametrize(
    ("test_id", "family"),
    [
        ("tests/conformance/test_registry.py::test_family_passes[gpt_neox-decoding]", "gpt_neox"),
        ("tests/inference/test_compiled.py::test_equal[3-mamba]", "mamba"),
        ("tests/backbones/test_mamba.py::test_scan", "mamba"),
        ("tests/backbones/test_mamba.py::test_like[gpt2]", "gpt2"),
        ("tests/ops/test_rope.py::test_turns[mamba2]", None),
        ("tests/ops/test_rope.py::test_turns", None),
    ],
)
def test_family_of_reads_parameters_then_the_file(test_id: str, family: str | None) -> None:
    assert family_of(test_id, ["gpt2", "gpt_neox", "mamba"]) == family


def test_table_puts_the_costliest_first() -> None:
    durations = FamilyDurations(["a", "b"])
    durations.seconds.update({"a": 1.0, "b": 3.0, None: 5.0})
    durations.tests.update({"a": 2, "b": 1, None: 4})
    assert [line.split(maxsplit=1) for line in durations.table()] == [
        ["3.0", "b (1 tests)"],
        ["1.0", "a (2 tests)"],
        ["2.0", "mean of 2 families"],
        ["5.0", "tests that name no family (4 tests)"],
    ]


CODE = """
import subprocess, sys
import pytest

def spin(seconds):
    code = "import time\\nwhile time.process_time() < float({}): pass"
    subprocess.run([sys.executable, "-c", code.format(seconds)], check=True)

@pytest.mark.parametrize("family", ["gpt2", "mamba"])
def test_work(family):
    spin(0.3 if family == "mamba" else 0.01)
"""


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n", "1"]], ids=["alone", "worker"])
def test_pytest_prints_the_cpu_seconds_of_child_processes(workers: list[str], tmp_path: Path) -> None:
    """Run as a user does, without a worker and with one; only the hooks of conftest.py come with it, and not torch."""
    hooks = (conftest.pytest_addoption, conftest.pytest_configure)
    assert hooks == (durations.pytest_addoption, durations.pytest_configure)
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_some.py").write_text(CODE)
    (folder / "conftest.py").write_text("from tests.durations import pytest_addoption, pytest_configure\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations-by-family", *workers]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # each process would import all of them
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout[done.stdout.index("CPU seconds by family") :].splitlines()
    seconds, family = lines[1].split(maxsplit=1)
    assert family == "mamba (1 tests)"
    assert 0.3 <= float(seconds) < 30
