"""Names of files and folders: the rules for those that can be written, and the names of what is not committed yet."""

from __future__ import annotations

import errno
import os
from pathlib import Path

TEMPORARY = ".writing"  # suffix of a file or folder that is not committed yet
REPLACED = ".replaced"  # suffix of an old folder while it is replaced
PATH_BYTES, PART_BYTES = 4000, 255  # limits of the length of a path and of a name in it


def aside(path: Path, suffix: str) -> Path:
    """Returns a hidden name beside `path`, for what belongs to it and is not to be read."""
    return path.parent / f".{path.name}{suffix}"


def unfinished(path: Path) -> Path:
    """Returns the temporary path of the folder `path`, for other ranks that write into it."""
    return aside(path, TEMPORARY)


def replaced(path: Path) -> Path:
    """Returns the path of the old folder `path` while a new one replaces it."""
    return aside(path, REPLACED)


def require_valid(path: Path) -> None:
    """Raise `OSError` for a name that cannot be used, before a folder above it is made.

    For a NUL character, the functions of `os` would raise `ValueError`.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "the name has a NUL character")
    if not path.name:
        raise OSError(errno.EINVAL, "it has no name of its own")
    try:
        longest = max(len(os.fsencode(part)) for part in (*path.parts, aside(path, TEMPORARY).name))
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, "the name has a lone surrogate") from error
    if longest > PART_BYTES or len(os.fsencode(path)) > PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, "the name is too long")
