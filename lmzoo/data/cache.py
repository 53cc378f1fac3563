"""Where built, downloaded and tokenised files are kept, and how they are written so that no half file is ever trusted.

The directory is `$LMZOO_CACHE`, or `~/.cache/lmzoo`. Everything in it can be deleted at any time: it is made again.
"""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lmzoo.errors import DataError

_LEFTOVER_SECONDS = 24 * 3600


def cache_dir(room: str) -> Path:
    """The cache's folder `room` ("corpora", "downloads", "tokens"), made if it is missing.

    Raises DataError when it cannot be made.
    """
    home = os.environ.get("LMZOO_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "lmzoo")
    path = Path(home) / room
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path`; it takes that name only when the block ends without an error.

    A reader sees the old file or the whole new one, never a part. Raises DataError when the disk refuses.
    """
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            # Without this a power cut could leave the final name on an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of earlier attempts; one that another process still writes is younger."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                leftover.unlink()


def _cannot_write(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"cannot write {path}: {reason}; set LMZOO_CACHE to a directory that can be written")
