"""Locks a run directory, so that only one process at a time trains in it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lmzoo import files
from lmzoo.errors import ConfigError
from lmzoo.storage import atomic

_POLL_SECONDS = 0.1


@contextmanager
def locked(run: Path) -> Generator[None]:
    """Make the directory `run` if it is missing, and lock it. Raises `ConfigError` if another process has the lock.

    A kernel lock (flock) on the directory itself: it leaves no file, and the kernel releases it when the process ends,
    also after a kill.
    """
    try:
        atomic.make_folder(run)
        descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"out={run} cannot be written: {files.reason(error)}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"out={run} is being trained in by another process") from None
        yield
    finally:
        os.close(descriptor)


def wait_until_unlocked(run: Path, seconds: float) -> None:
    """Wait while another process has the lock of `run`, at most `seconds`: one that is about to save and end."""
    deadline = time.monotonic() + seconds
    while run.is_dir() and time.monotonic() < deadline:
        descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
        finally:
            os.close(descriptor)
