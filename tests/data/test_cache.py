"""Tests of the cache: its location, and atomic writes by several processes."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

import pytest

from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.errors import DataError


def test_cache_dir_is_made_in_the_directory_that_the_environment_names(cache: Path) -> None:
    assert cache_dir("tokens") == cache / "tokens"
    assert (cache / "tokens").is_dir()


def test_cache_file_is_written_by_two_writers_at_once(cache: Path) -> None:
    path = cache_dir("tokens") / "a.bin"
    with cache_file(path) as write:
        write(b"first")
        with cache_file(path) as other:
            other(b"sec")
            other(b"ond")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert [file.name for file in path.parent.iterdir()] == ["a.bin"]


def test_cache_file_removes_only_old_temporary_files(cache: Path) -> None:
    path = cache_dir("tokens") / "a[1].bin"
    names = (".a[1].bin.1-a.writing", ".a[1].bin.2-b.writing", ".a1.bin.3-c.writing")
    old, young, other = (path.with_name(name) for name in names)
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, time.time() - 25 * 3600))
    with cache_file(path) as write:
        write(b"text")
    assert {file.name for file in path.parent.iterdir()} == {path.name, young.name, other.name}


def test_cache_file_names_the_path_and_the_remedy_when_it_cannot_write(cache: Path) -> None:
    path = cache_dir("tokens") / "missing" / "a.bin"
    with (
        pytest.raises(DataError, match=r"cannot write .*a\.bin: No such file.*; set LMZOO_CACHE"),
        cache_file(path) as write,
    ):
        write(b"text")


def test_cache_file_keeps_the_old_content_after_an_error(cache: Path) -> None:
    path = cache_dir("tokens") / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), cache_file(path) as write:  # noqa: PT012
        write(b"new")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["a.bin"]


def test_cache_dir_is_where_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LMZOO_CACHE", raising=False)
    assert cache_dir("tokens") == tmp_path / "home/.cache/lmzoo/tokens"
    assert "`~/.cache/lmzoo`" in guide
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path / "elsewhere"))
    assert cache_dir("tokens") == tmp_path / "elsewhere/tokens"
    assert "`LMZOO_CACHE`" in guide


def test_cache_dir_makes_no_folder_named_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a user whom the system does not know, without HOME."""

    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("LMZOO_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(DataError, match=r"cannot write ~.*: there is no home directory; set LMZOO_CACHE"):
        cache_dir("tokens")
    assert not any(tmp_path.iterdir())
