"""Tests the lock on a run directory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmzoo.errors import ConfigError
from lmzoo.runs.lock import locked, wait_until_unlocked

# A process that locks a directory, says so, and is killed while it has the lock.
HOLDER = """
import sys
from pathlib import Path
from lmzoo.runs.lock import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_locked_makes_the_directory_and_leaves_no_file(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "new"
    with locked(run):
        assert run.is_dir()
    assert list(run.iterdir()) == []
    with locked(run):
        pass


def test_locked_refuses_a_second_process_until_the_first_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="is being trained in by another process"), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):
        pass


def test_locked_names_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"out=.*file.run cannot be written: "), locked(tmp_path / "file" / "run"):
        pass


def test_wait_until_unlocked_waits_for_another_process_but_not_for_ever(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        began = time.monotonic()
        wait_until_unlocked(tmp_path, 0.3)
        assert time.monotonic() - began >= 0.3
        holder.kill()
        wait_until_unlocked(tmp_path, 60.0)
        with locked(tmp_path):
            pass
    wait_until_unlocked(tmp_path / "missing", 60.0)
