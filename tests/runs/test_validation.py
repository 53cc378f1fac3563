"""Tests the validation tokens that a run keeps: exact, bounded, and refused in one line when damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lmzoo.data.store import TokenSplit
from lmzoo.errors import CheckpointError
from lmzoo.runs import validation
from lmzoo.runs.validation import VALIDATION_FILE, read_validation, write_validation


def _split(dtype: str = "uint16") -> TokenSplit:
    tokens = np.array([3, 1, 4, 1, 5], dtype=dtype)
    return TokenSplit("sea.txt", "val", tokens, tokens.size, 9, 7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_read_validation_returns_what_was_written(tmp_path: Path, dtype: str) -> None:
    write_validation(tmp_path, _split(dtype))
    found = read_validation(tmp_path, 6)
    assert found is not None
    assert found.tokens.tolist() == [3, 1, 4, 1, 5]
    assert (found.split, found.n_tokens, found.n_bytes, found.n_chars) == ("val", 5, 9, 7)


def test_write_validation_keeps_no_large_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_validation(tmp_path, _split())  # left by an early kill
    monkeypatch.setattr(validation, "MAX_BYTES", 9)
    write_validation(tmp_path, _split())
    assert list(tmp_path.iterdir()) == []
    assert read_validation(tmp_path, 6) is None


def _changed(name: str, value: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        ids = np.array([3, 1, 4, 1, 5], dtype=np.uint16)
        facts = {"n_bytes": "9", "n_chars": "7", "sha256": validation._sha256(ids), name: value}
        path.write_bytes(safetensors.numpy.save({"tokens": ids}, facts))

    return change


def _float(path: Path) -> None:
    path.write_bytes(safetensors.numpy.save({"tokens": np.ones(5)}, {"n_bytes": "9", "n_chars": "7", "sha256": ""}))


def _link(path: Path) -> None:
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not a file of validation tokens"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), "its content differs from its header"),
        (lambda path: path.write_bytes(b""), "is not a file of validation tokens"),
        (lambda path: path.write_bytes(safetensors.numpy.save({"tokens": np.ones(5)})), "is not a file"),
        (_float, "its content differs from its header"),
        (_changed("n_bytes", "x"), "is not a file of validation tokens"),
        (_changed("n_bytes", "9" * 5000), "is not a file of validation tokens"),
        (_changed("n_bytes", "9" * 400), "its content differs from its header"),
        (_changed("n_chars", "0"), "its content differs from its header"),
        (_link, "must be a regular file"),
        (_pipe, "must be a regular file"),
    ],
)
def test_read_validation_refuses_a_damaged_file(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_validation(tmp_path, _split())
    damage(tmp_path / VALIDATION_FILE)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_validation(tmp_path, 6)
    assert "\n" not in str(caught.value)


def test_read_validation_refuses_tokens_of_another_vocabulary(tmp_path: Path) -> None:
    write_validation(tmp_path, _split())
    with pytest.raises(CheckpointError, match="holds the token 5: must be below vocab_size=5"):
        read_validation(tmp_path, 5)


def test_read_validation_refuses_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_validation(tmp_path, _split())
    monkeypatch.setattr(validation, "MAX_BYTES", 0)
    monkeypatch.setattr(validation, "_MAX_HEADER", 100)
    with pytest.raises(CheckpointError, match="is larger than 100 bytes"):
        read_validation(tmp_path, 6)


def _isolated(*ends: int) -> TokenSplit:
    split = _split()
    return TokenSplit("sea.txt", "val", split.tokens, split.n_tokens, 9, 7, np.array(ends, dtype=np.int64))


def test_read_validation_returns_the_ends_of_isolated_documents(tmp_path: Path) -> None:
    write_validation(tmp_path, _isolated(2, 2, 5))
    found = read_validation(tmp_path, 6)
    assert found is not None
    assert found.ends is not None
    assert found.ends.tolist() == [2, 2, 5]
    write_validation(tmp_path, _split())
    found = read_validation(tmp_path, 6)
    assert found is not None
    assert found.ends is None


@pytest.mark.parametrize("ends", [(), (2,), (2, 6), (3, 2, 5), (-1, 5), (1, 2, 3, 4, 5)])
def test_read_validation_refuses_impossible_ends(tmp_path: Path, ends: tuple[int, ...]) -> None:
    write_validation(tmp_path, _isolated(*ends))
    with pytest.raises(CheckpointError, match="its content differs from its header"):
        read_validation(tmp_path, 6)


def test_read_validation_says_why_a_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_validation(tmp_path, _split())

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(validation.files, "open_regular", refuse)  # for every user, root included
    with pytest.raises(CheckpointError, match=rf"{VALIDATION_FILE}: cannot be read: Permission denied$"):
        read_validation(tmp_path, 6)
