"""Two corpora that need no download: they are built from the standard library of the running Python.

`pydocs` is English technical prose: the topics of the Python manual (`pydoc_data.topics`) and the docstrings of the
standard library. `pycode` is the library's source. The sources are parsed with `ast`, never imported, so the text
depends only on the Python version (each patch version gives a slightly different text): not on the environment, the
platform or installed packages.

A document is a topic, a docstring, or the source of a module. Manual topics contain one another, and docstrings are
inherited or copied, so near-duplicates are removed; documents that share text with others come first in the text, and
so belong to the training split.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import sys
import tokenize
import warnings
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from lmzoo import files
from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.data.deduplicate import deduplicate
from lmzoo.data.text import SEPARATOR, Span, file_span, scan
from lmzoo.errors import DataError

EMBEDDED = ("pycode", "pydocs")

_INDEX_BYTES = 64 << 20  # limit of the index of documents

# Increase this when the functions below produce another text: cached files of other versions are ignored.
BUILD_VERSION = 2

# Documents with a larger share of shingles that other documents contain belong to the training split.
MAX_SHARED = 0.01

# Some distributions package these separately or not at all; without them the text is the same everywhere.
_OPTIONAL = {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtledemo"}
_TEST_FOLDERS = {"test", "tests", "idle_test"}
# Tables of code points, and the manual as string literals: not useful as code.
_NOT_CODE = {"encodings", "pydoc_data"}


def embedded(name: str) -> list[Span]:
    """Returns the documents of an embedded corpus: built on first use (a few seconds), cached, checked by its hash.

    They lie in one file, separated by `SEPARATOR`. Raises DataError when this Python has no library sources, or the
    cache cannot be written.
    """
    version = platform.python_version()
    path = cache_dir("corpora") / f"{name}-{sys.implementation.name}-{version}-v{BUILD_VERSION}.txt"
    index_path = path.with_suffix(".json")
    sizes = _read_index(path, index_path)
    if sizes is None:
        documents = [document.encode() for document in build(name)]
        text = SEPARATOR.join(documents)
        sizes = [len(document) for document in documents]
        # The index is written last: a file without its index is built again.
        with cache_file(path) as write:
            write(text)
        with cache_file(index_path) as write:
            write(json.dumps({"sha256": hashlib.sha256(text).hexdigest(), "documents": sizes}).encode())
    starts = accumulate((size + len(SEPARATOR) for size in sizes), initial=0)
    return [Span(path, start, start + size) for start, size in zip(starts, sizes, strict=False)]


def origin() -> str:
    """Describes the source of the embedded corpora, which differ between versions of Python."""
    return f"the standard library of {platform.python_implementation()} {platform.python_version()}"


def build(name: str) -> list[str]:
    """Build the documents of "pydocs" or "pycode" without the cache."""
    return _ordered({"pydocs": _prose, "pycode": _code}[name]())


def _read_index(path: Path, index_path: Path) -> list[int] | None:
    """Returns the sizes of the documents in bytes, or None if a file is missing or damaged."""
    try:
        index = files.parse_json(files.read_bytes(index_path, _INDEX_BYTES))
        found = scan([file_span(path)])
        sizes = [int(size) for size in index["documents"]]
        n_bytes = sum(sizes) + len(SEPARATOR) * (len(sizes) - 1)
        return sizes if (index["sha256"], n_bytes) == (found.sha256, found.n_bytes) else None
    except (OSError, ValueError, KeyError, TypeError):  # a DataError is a ValueError
        return None


def _ordered(documents: Iterator[str]) -> list[str]:
    """Remove near-duplicates and sort the documents by hash, which mixes topics evenly over the text.

    Two kinds move to the front, into the training split: documents that share text with others, so that the validation
    split has no copies of the training split; and then documents with a character that no earlier one contains, so that
    the training split has every character of the corpus and a character tokenizer trained on it can encode all.
    """
    clean = [document.replace("\r\n", "\n").strip() for document in documents]
    shared = deduplicate([text for text in clean if text and _is_text(text)])
    by_hash = sorted(shared, key=lambda text: hashlib.sha256(text.encode()).digest())
    first: list[str] = []
    rest: list[str] = []
    seen: set[str] = set()
    for text in by_hash:
        new_character = not seen.issuperset(text)
        (first if new_character or shared[text] > MAX_SHARED else rest).append(text)
        seen.update(text)
    return first + rest


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in set(text))


def _prose() -> Iterator[str]:
    for module, source in _sources():
        tree = _parse(source)
        if module == "pydoc_data/topics.py":
            for statement in tree.body:
                if isinstance(statement, ast.Assign):
                    yield from ast.literal_eval(statement.value).values()
            continue
        yield from _docstrings(tree)


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Yields the docstrings of a module, class or function and of all inside it. Expressions cannot contain one."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node) or ""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for statement in getattr(node, block, ()):
            yield from _docstrings(statement)


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
