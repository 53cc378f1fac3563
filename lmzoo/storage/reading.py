"""Reads what `lmzoo.storage.atomic` has written: folders that are checked against their manifest, JSON, hashes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo import files
from lmzoo.errors import CheckpointError
from lmzoo.storage.names import replaced

MANIFEST = "manifest.json"
_MAX_JSON = 16 << 20


@dataclass(frozen=True)
class Folder:
    """A folder whose files were checked against its manifest; only listed files can be read through it."""

    path: Path
    sizes: Mapping[str, int]

    def file(self, name: str) -> Path:
        """Returns the path of a checked file. Raises `CheckpointError` when the manifest does not list it."""
        if name not in self.sizes:
            raise CheckpointError(f"{self.path / MANIFEST}: {name} is not listed")
        return self.path / name

    def json(self, name: str) -> dict[str, Any]:
        """Read the JSON object in a checked file. Raises `CheckpointError` if it is not one."""
        return read_json(self.file(name))


def open_folder(path: Path) -> Folder:
    """Check every file that the manifest of `path` lists: a plain name, a regular file, its size and its SHA-256.

    Raises `CheckpointError` naming the file and the rule.
    """
    if not os.path.lexists(path) and os.path.isdir(replaced(path)):
        path = replaced(path)  # the writer was killed between two renames: the old folder is valid
    manifest = read_json(path / MANIFEST)
    listed = manifest.get("files")
    if manifest.get("lmzoo") != 1 or not isinstance(listed, dict):
        raise CheckpointError(f"{path / MANIFEST}: is not a manifest of version 1")
    for name, entry in listed.items():
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise CheckpointError(f"{path / MANIFEST}: {name!r} must be the plain name of a file in the folder")
        if not isinstance(entry, dict):
            raise CheckpointError(f"{path / MANIFEST}: {name} must have bytes and sha256")
        size = regular_size(path / name)
        if size != entry.get("bytes"):
            raise CheckpointError(f"{path / name}: has {size} bytes, its manifest says {entry.get('bytes')}")
        try:
            sha256 = file_sha256(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name}: cannot be read: {files.reason(error)}") from error
        if sha256 != entry.get("sha256"):
            raise CheckpointError(f"{path / name}: its SHA-256 differs from its manifest (damaged or changed)")
    return Folder(path, {name: entry["bytes"] for name, entry in listed.items()})


def read_json(path: Path, *, links: bool = False, limit: int = _MAX_JSON) -> dict[str, Any]:
    """Read a JSON object from a regular file of at most `limit` bytes, or a link to one. Raises `CheckpointError`."""
    if not links:
        regular_size(path)
    try:
        content = files.parse_json(files.read_bytes(path, limit))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {files.reason(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return content


def regular_size(path: Path) -> int:
    """Returns the size of a regular file in bytes.

    Raises `CheckpointError` for anything else: a symbolic link could point outside the folder, reading a pipe could
    block.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {files.reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: must be a regular file, not a link or something else")
    return status.st_size


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal. Raises `OSError`."""
    with files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
