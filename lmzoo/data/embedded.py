"""Two corpora that need no download: they are built from the standard library of the running Python.

`pydocs` is English technical prose: the topics of the Python manual (`pydoc_data.topics`) and the docstrings of the
standard library. `pycode` is the library's source. The sources are parsed with `ast`, never imported, so the text
depends only on the Python version: not on the environment, the platform or installed packages.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.data.text import file_span, scan
from lmzoo.errors import DataError

EMBEDDED = ("pycode", "pydocs")

# Increase this when the functions below produce another text: cached files of other versions are ignored.
BUILD_VERSION = 1

# Some distributions package these separately or not at all; without them the text is the same everywhere.
_OPTIONAL = {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtledemo"}
_TEST_FOLDERS = {"test", "tests", "idle_test"}
# Tables of code points, and the manual as string literals: not useful as code.
_NOT_CODE = {"encodings", "pydoc_data"}


def embedded(name: str) -> Path:
    """Returns the text file of an embedded corpus: built on first use (a few seconds), cached, checked by its hash.

    Raises DataError when this Python has no library sources, or the cache cannot be written.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    path = cache_dir("corpora") / f"{name}-{sys.implementation.name}-{version}-v{BUILD_VERSION}.txt"
    hash_path = path.with_suffix(".sha256")
    if not _is_intact(path, hash_path):
        text = build(name).encode()
        # The hash is written last: a file without its hash is built again.
        with cache_file(path) as write:
            write(text)
        with cache_file(hash_path) as write:
            write(hashlib.sha256(text).hexdigest().encode())
    return path


def build(name: str) -> str:
    """Build the text of "pydocs" or "pycode" without the cache."""
    documents = {"pydocs": _prose, "pycode": _code}[name]()
    return "\n\n".join(_shuffled(documents)) + "\n"


def _is_intact(path: Path, hash_path: Path) -> bool:
    try:
        expected = hash_path.read_text(encoding="ascii")
        return scan([file_span(path)]).sha256 == expected
    except (OSError, ValueError):  # a DataError is a ValueError
        return False


def _shuffled(documents: Iterator[str]) -> list[str]:
    """Remove duplicate documents and sort the rest by hash, which mixes topics evenly over the text.

    Then documents with a character that no earlier document contains move to the front, so that the training split
    has every character of the corpus and a character tokenizer trained on it can encode the validation split.
    """
    unique: dict[bytes, str] = {}
    for document in documents:
        text = document.replace("\r\n", "\n").strip()
        if text and "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in set(text)):
            unique[hashlib.sha256(text.encode()).digest()] = text
    first: list[str] = []
    rest: list[str] = []
    seen: set[str] = set()
    for _, text in sorted(unique.items()):
        (rest if seen.issuperset(text) else first).append(text)
        seen.update(text)
    return first + rest


def _prose() -> Iterator[str]:
    for module, source in _sources():
        tree = _parse(source)
        if module == "pydoc_data/topics.py":
            for statement in tree.body:
                if isinstance(statement, ast.Assign):
                    yield from ast.literal_eval(statement.value).values()
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def _code() -> Iterator[str]:
    for module, source in _sources():
        if module.split("/")[0] not in _NOT_CODE:
            yield source


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # Silences warnings about invalid escapes in the standard library: the user cannot fix them.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _sources() -> Iterator[tuple[str, str]]:
    """Yields (path, text) of the modules of the standard library, sorted by path."""
    library = Path(os.__file__).parent
    paths: dict[str, Path] = {}
    for name in sys.stdlib_module_names - _OPTIONAL:
        for path in (library / f"{name}.py", *(library / name).rglob("*.py")):
            parts = path.relative_to(library).parts
            if path.is_file() and not _TEST_FOLDERS.intersection(parts):
                paths["/".join(parts)] = path
    if not paths:
        raise DataError(f"no sources of the standard library in {library}; give a text: --data path/to/file.txt")
    for module, path in sorted(paths.items()):
        with tokenize.open(path) as file:
            yield module, file.read()
