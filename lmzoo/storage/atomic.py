"""Atomic writes: if the process is killed at any moment, a reader finds the old version or the new one, never a part.

A folder is written under a temporary name next to its final path. Every file is fsynced, then a manifest with sizes and
SHA-256 hashes, and one rename moves the folder to its final path. A reader checks the files against the manifest first.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from lmzoo import files
from lmzoo.errors import CheckpointError, LmzooError
from lmzoo.storage.names import REPLACED, TEMPORARY, aside, replaced, require_valid
from lmzoo.storage.reading import MANIFEST, file_sha256

_LEFTOVER_SECONDS = 24 * 3600  # age at which a temporary file of a shared file belongs to a writer that was killed

Chunk = bytes | memoryview


def cannot_write(path: Path, error: OSError) -> CheckpointError:
    """Wraps an `OSError` raised while writing."""
    return CheckpointError(f"{path}: cannot be written: {files.reason(error)}")


@contextmanager
def new_folder(path: Path, *, manifest: bool = True) -> Generator[Path]:
    """Yields a temporary folder to fill; it gets the name `path` when the block ends without an error.

    It replaces a folder of that name; after an error the old folder is unchanged. Without a `manifest`, it is a folder
    for other programs. Raises `CheckpointError` when writing fails.
    """
    temporary = aside(path, TEMPORARY)
    held: int | None = None
    try:
        require_valid(path)
        if not str(path).isascii() and str(path) != os.fsencode(path).decode(errors="replace"):
            raise OSError(errno.EINVAL, "the name is not UTF-8")  # the package safetensors cannot open files in it
        make_folder(path.parent)
        _require_replaceable(path, stat.S_ISDIR, "a folder")
        held = _new_temporary_folder(temporary)
        yield temporary
        written = sorted(temporary.iterdir())
        for file in written:
            _sync(file)
        if manifest:
            entries = {file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in written}
            write_new(temporary / MANIFEST, [json.dumps({"lmzoo": 1, "files": entries}, indent=1).encode()])
            _sync(temporary / MANIFEST)
        _sync(temporary)
        _put_in_place(temporary, path)
        os.close(held)
        held = None
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if held is not None:  # the folder is ours, and still there
            discard(temporary)
            os.close(held)


@contextmanager
def new_file(
    path: Path, *, shared: bool = False, error: Callable[[Path, OSError], LmzooError] = cannot_write
) -> Generator[Callable[[Chunk], None]]:
    """Yields a function that writes to a temporary file; it gets the name `path` when the block ends without an error.

    A reader sees the old content or the complete new content. With `shared`, several processes may write the file at
    once: each uses a temporary name of its own. When writing fails, raises the error that `error` returns.
    """
    temporary = aside(path, f".{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}" if shared else TEMPORARY)
    try:
        _require_replaceable(path, stat.S_ISREG, "a regular file")
        if shared:
            _discard_leftovers(path)
        discard(temporary)
        descriptor = _create(temporary)
        try:
            yield partial(write_all, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as cause:
        raise error(path, cause) from cause
    finally:
        discard(temporary)


@contextmanager
def filled_file(path: Path) -> Generator[Path]:
    """Yields the path of a new, empty file, which another library fills; otherwise as `new_file`."""
    temporary = aside(path, TEMPORARY)
    try:
        _require_replaceable(path, stat.S_ISREG, "a regular file")
        discard(temporary)
        write_new(temporary, [])
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is None:  # numpy raises an error without a number when not all bytes are written
            error = OSError(errno.ENOSPC, "not all of it could be written: the disk may be full")
        raise cannot_write(path, error) from error
    finally:
        discard(temporary)


def write_file(path: Path, content: str | Iterable[Chunk]) -> None:
    """Write a text or chunks to a file as `new_file` does. Raises `CheckpointError`."""
    with new_file(path) as write:
        for chunk in [content.encode()] if isinstance(content, str) else content:
            write(chunk)


def write_new(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write a file that must not exist yet, not even as a link; the caller commits it. Raises `OSError`."""
    descriptor = _create(path)
    try:
        for chunk in chunks:
            write_all(descriptor, chunk)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, chunk: Chunk) -> None:
    """Write every byte; one call of `os.write` may write fewer. Raises `OSError`."""
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, and fsync their names. Raises `OSError`."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder; if killed, it is complete or has a name no reader uses. Raises `CheckpointError`."""
    gone = aside(path, TEMPORARY)
    try:
        discard(gone)
        os.rename(path, gone)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be removed: {files.reason(error)}") from error
    discard(gone)


def set_aside(path: Path, prefix: str) -> Path:
    """Rename a damaged folder so that no reader loads it but a user can inspect it. Raises `CheckpointError`."""
    aside = path.with_name(f"{prefix}-{path.name}")
    try:
        discard(aside)
        os.rename(path, aside)
        _sync(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be set aside: {files.reason(error)}") from error
    return aside


def clean(folder: Path) -> None:
    """Remove the temporary files of killed writers from `folder`, and undo an interrupted replacement.

    Raises `CheckpointError` when that fails.
    """
    for leftover in folder.glob(f".*{TEMPORARY}"):
        discard(leftover)
    for old in folder.glob(f".*{REPLACED}"):
        place = folder / old.name[1 : -len(REPLACED)]
        if place.exists():
            discard(old)
            continue
        try:
            os.rename(old, place)
        except OSError as error:
            raise cannot_write(place, error) from error


def discard(path: Path) -> None:
    """Remove a file or a folder, if it exists and can be removed."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError, ValueError):  # ValueError: a name with a NUL character
            path.unlink()


def _new_temporary_folder(path: Path) -> int:
    """Make a temporary folder and lock it; returns its descriptor. The kernel releases the lock when the process ends.

    Replaces what a killed writer has left there. Raises `OSError` if another process is writing it.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        os.close(_locked(path))
    discard(path)
    path.mkdir()
    return _locked(path)


def _locked(folder: Path) -> int:
    """Open and lock a folder. Raises `OSError` if another process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(errno.EBUSY, "another process is writing it") from error
    except OSError:  # a file system without locks
        pass
    return descriptor


def _put_in_place(temporary: Path, path: Path) -> None:
    old = replaced(path)
    replacing = path.exists() and any(path.iterdir())
    if replacing:
        discard(old)
        os.rename(path, old)
    try:
        os.rename(temporary, path)  # also replaces an empty folder
    except BaseException:  # also on a second Ctrl-C: keep the old folder
        if replacing:
            os.rename(old, path)
        raise
    _sync(path.parent)
    discard(old)


def _require_replaceable(path: Path, is_kind: Callable[[int], bool], kind: str) -> None:
    """Raise `OSError` if `path` exists and is of another kind: a rename would destroy a pipe, a device or a link."""
    require_valid(path)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not is_kind(mode):
        raise OSError(errno.EEXIST, f"it exists and is not {kind}")


def _create(path: Path) -> int:
    """Open a new file for writing. Fails if the file or a link exists."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _discard_leftovers(path: Path) -> None:
    """Remove temporary files of killed writers of a shared file; files of running writers are newer."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                leftover.unlink()


def _sync(path: Path) -> None:
    """Fsync a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
