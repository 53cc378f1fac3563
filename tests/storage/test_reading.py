"""Tests what reads a folder: damage is reported by name, and only regular files are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.storage import reading


def test_open_folder_reads_what_new_folder_wrote(saved: Path) -> None:
    folder = reading.open_folder(saved)
    assert folder.file("a.txt").read_text() == "some text"
    with pytest.raises(CheckpointError, match=r"b\.txt is not listed"):
        folder.file("b.txt")


def _append(saved: Path) -> None:
    (saved / "a.txt").write_text("some text.")


def _change(saved: Path) -> None:
    (saved / "a.txt").write_text("some test")


def _remove(saved: Path) -> None:
    (saved / "a.txt").unlink()


def _link(saved: Path) -> None:
    (saved / "a.txt").rename(saved.parent / "elsewhere.txt")
    (saved / "a.txt").symlink_to(saved.parent / "elsewhere.txt")


def _no_manifest(saved: Path) -> None:
    (saved / "manifest.json").unlink()


def _not_json(saved: Path) -> None:
    (saved / "manifest.json").write_text("[1,")


def _nested(saved: Path) -> None:
    (saved / "manifest.json").write_text("[" * 100_000)


def _list(saved: Path) -> None:
    (saved / "manifest.json").write_text("[]")


def _version(saved: Path) -> None:
    (saved / "manifest.json").write_text('{"lmzoo": 2, "files": {}}')


def _outside(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["../elsewhere.txt"] = manifest["files"]["a.txt"]
    (saved / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_append, "a.txt: has 10 bytes, its manifest says 9"),
        (_change, "a.txt: its SHA-256 differs from its manifest"),
        (_remove, "a.txt: cannot be read: No such file"),
        (_link, "a.txt: must be a regular file, not a link"),
        (_no_manifest, "manifest.json: cannot be read"),
        (_not_json, "manifest.json: is not JSON"),
        (_nested, "manifest.json: is not JSON"),
        (_list, "manifest.json: must hold a JSON object"),
        (_version, "is not a manifest of version 1"),
        (_outside, "'../elsewhere.txt' must be the plain name of a file"),
    ],
)
def test_open_folder_names_the_damage(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        reading.open_folder(saved)
    assert "\n" not in str(caught.value)


def test_file_sha256_reads_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        reading.file_sha256(tmp_path / "pipe")
