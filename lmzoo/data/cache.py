"""The cache of built, downloaded and tokenized files.

The directory is `$LMZOO_CACHE`, or `~/.cache/lmzoo`. Its files can be deleted at any time: they are built again when
needed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lmzoo import files
from lmzoo.errors import DataError
from lmzoo.storage import atomic


def cache_dir(name: str) -> Path:
    """Returns the folder `name` of the cache ("corpora", "downloads", "tokens") and creates it if it is missing.

    Raises `DataError` when it cannot be created.
    """
    given = os.environ.get("LMZOO_CACHE")
    path = Path(given or os.path.join(os.path.expanduser("~"), ".cache", "lmzoo")) / name
    if not given and not path.is_absolute():  # a user whom the system does not know: a folder named "~" would be made
        raise _cannot_write(path, FileNotFoundError(errno.ENOENT, "there is no home directory"))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def cache_file(path: Path) -> AbstractContextManager[Callable[[atomic.Chunk], None]]:
    """Write a cache file atomically (`atomic.new_file`); several processes may write it at once. Raises `DataError`."""
    return atomic.new_file(path, shared=True, error=_cannot_write)


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {files.reason(error)}; set LMZOO_CACHE to a directory that can be written")
