"""Tests the reading of files from outside: regular files only, of bounded size, with reasons of one line."""

from __future__ import annotations

import ast
import os
import socket
from pathlib import Path

import pytest

from lmzoo import files

PACKAGE = Path(__file__).parent.parent / "lmzoo"


def test_open_regular_reads_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert files.read_bytes(tmp_path / "link", 4) == b"text"


def test_open_regular_refuses_everything_else_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket has at most 107 bytes: the name alone always fits
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), "nul\0name"):
            with pytest.raises(OSError, match=r"not a regular file|not valid|No such device"):
                files.open_regular(path)


def test_read_bytes_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(OSError, match="it is larger than 4 bytes"):
        files.read_bytes(tmp_path / "file", 4)


def test_read_text_names_the_byte_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"^not UTF-8 at byte offset 2$"):
        files.read_text(tmp_path / "file", 9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("[" * 100_000, "nested too deeply"), ("1" * 5000, "out of range"), ("{", "line 1, column 2"), (b"\xff", "UTF-8")],
)
def test_parse_json_gives_a_reason(content: bytes | str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        files.parse_json(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "1" * 5000, "out of range"),
        ("a =", "line 1, column 4|at end of document"),
        (b"\xff", "UTF-8"),
    ],
)
def test_parse_toml_gives_a_reason(content: bytes | str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        files.parse_toml(content)


def test_reason_has_neither_number_nor_path() -> None:
    assert files.reason(FileNotFoundError(2, "No such file or directory", "x")) == "No such file or directory"
    assert files.reason(OSError()) == "OSError"


# Calls that read a file or parse its content without the limits of lmzoo/files.py, and where they are allowed.
BARE = {"read_text", "read_bytes", "loads", "load", "safe_open", "open"}
ALLOWED = {
    "files.py": "the limits are here",
    "bench/steps.py": "opens /dev/null",
    "compare/engine.py": "reads back an error that it has just pickled for another process of this program",
    "compare/report.py": "reads a style sheet of this package",
    "compare/svg.py": "reads back its own text, and a style sheet of this package",
    "conformance/": "reads what the checks have just written, and source code",
    "configs.py": "parses a setting of bounded length and reads back its own text",
    "data/chat_worker.py": "reads what data/chat.py sends it",
    "data/embedded.py": "reads the standard library",
    "cli/group.py": "opens the null device in the place of a closed stream",
    "gallery/": "reads source code and a style sheet of this package",
    "gguf/write.py": "opens what it has just written",
    "hardware.py": "reads /proc",
    "hf/fitting.py": "reads back its own text",
    "inspect/page.py": "reads a style sheet of this package",
    "probing/plan.py": "reads back its own text",
    "puzzles/catalog.py": "reads the sources of this package",
    "reproducing/recipe.py": "reads the recipes of this package",
    "runs/validation.py": "opens what was checked to be a regular file of bounded size",
    "storage/mapped.py": "reads again the header that storage/safetensors.py has checked",
    "storage/safetensors.py": "opens what files.py has checked",
}
# Functions of these modules and objects have such a name and read no file of a user.
HARMLESS = {"os", "files", "tokenize", "checkpoint", "webbrowser"}


def test_files_of_users_are_read_here_only() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 400
    for path in paths:
        name = str(path.relative_to(PACKAGE))
        if not any(name.startswith(place) for place in ALLOWED):
            found = calls_without_limits(path)
            assert not found, f"{name} reads without limits, by {found}: use lmzoo/files.py"


def calls_without_limits(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {name for node in nodes if isinstance(node, ast.Call) if (name := called(node.func))}


def called(function: ast.expr) -> str | None:
    """Return the name of a function that reads without limits, else None."""
    if isinstance(function, ast.Name):
        return function.id if function.id in {"open", "safe_open"} else None
    if not isinstance(function, ast.Attribute) or function.attr not in BARE:
        return None
    owner = function.value
    return None if isinstance(owner, ast.Name) and owner.id in HARMLESS else function.attr


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_parse_json_refuses_numbers_that_are_not_finite_if_told_so(number: str) -> None:
    assert files.parse_json(f"[{number}, 0.5, 1e3, 2]")[1:] == [0.5, 1000.0, 2]
    with pytest.raises(ValueError, match=f"^the number {number} is not finite$"):
        files.parse_json(f"[0.5, {number}]", finite=True)
    assert files.parse_json("[0.5, 1e3, 2]", finite=True) == [0.5, 1000.0, 2]
