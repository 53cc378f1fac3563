"""Tests of atomic writes: a killed writer leaves the old folder or the new one, and damage is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo import state
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, reading

KILL_AT_EVERY_CALL = """
import os, signal, sys
from pathlib import Path
from lmzoo.storage import atomic, reading

CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
path = Path(sys.argv[1]) / "saved"

def write(text):
    with atomic.new_folder(path) as new:
        (new / "a.txt").write_text(text)
        (new / "b.txt").write_text(text)

def read():
    folder = reading.open_folder(path)
    found = {folder.file(name).read_text() for name in ("a.txt", "b.txt")}
    assert len(found) == 1, found
    return found.pop()

def kill_at(nth):
    left = nth
    def hook(event, arguments):
        nonlocal left
        left -= event in CALLS
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

seen = []
for nth in range(1, 200):
    write("old")
    child = os.fork()
    if not child:
        kill_at(nth)
        write("new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    seen.append(read())
    if status == 0:
        break
    atomic.clean(path.parent)
    assert read() == seen[-1]
assert seen[0] == "old" and seen[-1] == "new" and len(seen) > 10, seen
write("last")
assert os.listdir(path.parent) == ["saved"], os.listdir(path.parent)
print(len(seen))
"""


def test_new_folder_killed_at_every_system_call_of_a_replacement(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILL_AT_EVERY_CALL, str(tmp_path)], check=True, timeout=60)


def test_new_folder_without_a_manifest_has_the_written_files_alone(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "out", manifest=False) as folder:
        atomic.write_new(folder / "a.txt", [b"a"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_new_folder_keeps_the_old_folder_after_an_error(saved: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.new_folder(saved) as new:  # noqa: PT012
        (new / "a.txt").write_text("other text")
        _ = 1 / 0
    assert reading.open_folder(saved).file("a.txt").read_text() == "some text"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_new_folder_names_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="cannot be written: File exists"),
        atomic.new_folder(tmp_path / "file" / "saved"),
    ):
        pass
    with pytest.raises(CheckpointError, match="cannot be written: No such file"):
        atomic.write_file(tmp_path / "missing" / "a.txt", "text")


def test_write_file_replaces_atomically(tmp_path: Path) -> None:
    for text in ("one", "two"):
        atomic.write_file(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text() == text
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every write, fsync and rename from here on, with the name of the file or folder (the new one of a rename)."""
    made: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    opened = os.open

    def note(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = opened(path, *arguments, **options)
        names[descriptor] = Path(path).name
        return descriptor

    def heard(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def instead(*arguments: Any) -> object:
            made.append((name, names.get(arguments[0]) or Path(arguments[1]).name))
            return call(*arguments)

        return instead

    monkeypatch.setattr(os, "open", note)
    for name in ("write", "fsync", "rename", "replace"):
        monkeypatch.setattr(os, name, heard(name))
    return made


def test_new_folder_is_synced_before_it_is_renamed(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    """A power cut leaves the old or the new folder: files are synced before the manifest, and renamed last."""
    with atomic.new_folder(tmp_path / "deep" / "saved") as new:
        atomic.write_new(new / "a", [b"1", b"2"])
        atomic.write_new(new / "b", [b"3"])
    assert calls == [
        ("fsync", tmp_path.name),  # the name "deep"
        *[("write", "a"), ("write", "a"), ("write", "b")],
        *[("fsync", "a"), ("fsync", "b")],
        *[("write", "manifest.json"), ("fsync", "manifest.json")],
        *[("fsync", ".saved.writing"), ("rename", "saved"), ("fsync", "deep")],
    ]
    calls.clear()
    atomic.write_file(tmp_path / "text", "some")
    one_file = [("write", ".text.writing"), ("fsync", ".text.writing"), ("replace", "text"), ("fsync", tmp_path.name)]
    assert calls == one_file
    calls.clear()
    state.save(tmp_path / "text", {"h": torch.zeros(1)})
    assert calls == [one_file[0], *one_file]  # the header, the tensor


def test_new_folder_undoes_a_replacement_that_fails_between_its_renames(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, made = os.rename, 0

    def second_fails(*names: Path) -> None:
        nonlocal made
        made += 1
        if made == 2:
            raise OSError(5, "Input/output error")
        rename(*names)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(CheckpointError, match="cannot be written: Input/output error"), atomic.new_folder(saved) as new:
        (new / "a.txt").write_text("other text")
    assert reading.open_folder(saved).file("a.txt").read_text() == "some text"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_new_folder_and_new_file_never_write_through_a_link(tmp_path: Path) -> None:
    """A run directory from another user may contain links at the paths of temporary files."""
    (tmp_path / "mine").write_text("precious")
    for name in (".a.txt.writing", ".saved.writing"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    atomic.write_file(tmp_path / "a.txt", "text")
    with atomic.new_folder(tmp_path / "saved") as new:
        atomic.write_new(new / "b.txt", [b"text"])
    assert (tmp_path / "mine").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "mine", "saved"]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_new_file_replaces_regular_files_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    (tmp_path / "file").write_text("kept")
    {"pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("file"), "folder": path.mkdir}[kind]()
    before = os.lstat(path).st_mode
    with pytest.raises(CheckpointError, match="target: cannot be written: it exists and is not a regular file"):
        atomic.write_file(path, "new")
    assert os.lstat(path).st_mode == before
    assert (tmp_path / "file").read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 2, "nothing else is left"


@pytest.mark.parametrize("kind", ["pipe", "link", "file"])
def test_new_folder_replaces_folders_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    {"pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(tmp_path), "file": path.touch}[kind]()
    before = os.lstat(path).st_mode
    with (
        pytest.raises(CheckpointError, match="target: cannot be written: it exists and is not a folder"),
        atomic.new_folder(path),
    ):
        raise AssertionError("unreachable")
    assert os.lstat(path).st_mode == before


@pytest.mark.parametrize("name", ["x/" + "a" * 256, "x/" * 2000 + "a", "x/" + "a" * 250, "x/a\0", "x/\ud800", "", "."])
def test_names_that_cannot_be_written_are_refused_before_a_folder_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (atomic.new_folder, atomic.new_file, atomic.filled_file):
        with pytest.raises(CheckpointError, match=r"cannot be written: (the name|it has no name)"), write(Path(name)):
            raise AssertionError("unreachable")
    assert not any(tmp_path.iterdir())


def test_new_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with atomic.new_folder(path) as first:
        atomic.write_new(first / "a", [b"first"])
        with (
            pytest.raises(CheckpointError, match="cannot be written: another process is writing it"),
            atomic.new_folder(path),
        ):
            raise AssertionError("unreachable")
        assert (first / "a").exists(), "the files of the first writer are left alone"
    assert (path / "a").read_bytes() == b"first"
    (tmp_path / ".saved.writing").mkdir()  # of a writer that was killed
    with atomic.new_folder(path) as new:
        atomic.write_new(new / "b", [b"second"])
    assert sorted(p.name for p in path.iterdir()) == ["b", "manifest.json"]
    assert [*tmp_path.iterdir()] == [path]


def test_new_folder_needs_a_name_in_utf_8(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="cannot be written: the name is not UTF-8"),
        atomic.new_folder(tmp_path / "x" / "\udcff"),
    ):
        raise AssertionError("unreachable")
    assert not any(tmp_path.iterdir())
    with atomic.new_folder(tmp_path / "模型") as new:
        atomic.write_new(new / "a", [b"a"])
    assert (tmp_path / "模型" / "a").exists()


def test_filled_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path, temporary = tmp_path / "a.bin", tmp_path / ".a.bin.writing"
    os.mkfifo(temporary)  # a library that opens it would wait for ever
    with atomic.filled_file(path) as place:
        assert place == temporary
        place.write_bytes(b"content")
        assert not path.exists()
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(ZeroDivisionError), atomic.filled_file(path) as place:
        1 // place.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not all of it could be written: the disk may"), atomic.filled_file(path):
        raise OSError("4096 requested and 1024 written")  # as numpy on a full disk
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"content"
