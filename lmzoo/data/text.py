"""Reads UTF-8 text in chunks: checks, counts, hashes and streams a text without holding all of it in memory.

A text is a list of `Span`s: byte ranges of files, and short literal bytes between them. Every span begins and ends on
a character boundary, so each span can be decoded separately.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmzoo import files
from lmzoo.errors import DataError

BLOCK_BYTES = 1 << 20
SEPARATOR = b"\n\n"  # between documents
# A cut between two words is searched for this many characters back from the end of a chunk.
_SEARCH_CHARS = 1 << 12


@dataclass(frozen=True)
class Span:
    """The bytes `start` to `stop` of a file, or of a literal."""

    source: Path | bytes
    start: int
    stop: int

    @property
    def n_bytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Scan:
    """The result of one pass over a text: its length in bytes and characters, and the SHA-256 of its UTF-8 bytes."""

    n_bytes: int
    n_chars: int
    sha256: str


def file_span(path: Path) -> Span:
    """Returns a span over a whole file. Raises DataError when it is missing or cannot be read."""
    try:
        with files.open_regular(path) as file:
            return Span(path, 0, file.seek(0, 2))
    except OSError as error:
        raise unreadable(path, error) from error


def utf8(text: str) -> bytes:
    """Returns the UTF-8 bytes of `text`. Raises DataError if it contains a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        char = text[error.start]
        raise DataError(f"U+{ord(char):04X} at position {error.start} is a lone surrogate, not a character") from error


def unreadable(path: Path, error: OSError) -> DataError:
    """Wraps an OSError raised while reading a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"no such file: {path}")
    return DataError(f"cannot read {path}: {files.reason(error)}")


def read_text(spans: Sequence[Span]) -> Iterator[str]:
    """Yields the text of the spans in chunks of at most 1 MiB that never cut a character; newlines are unchanged.

    Raises DataError that names the file and the byte offset for NUL bytes and for invalid UTF-8.
    """
    for span in spans:
        if isinstance(span.source, bytes):
            yield span.source[span.start : span.stop].decode()
        else:
            yield from _read_file(span.source, span.start, span.stop)


def scan(spans: Sequence[Span]) -> Scan:
    """Count and hash the text, in one pass. Raises as `read_text` does."""
    digest = hashlib.sha256()
    n_chars = 0
    for chunk in read_text(spans):
        digest.update(chunk.encode())
        n_chars += len(chunk)
    return Scan(sum(span.n_bytes for span in spans), n_chars, digest.hexdigest())


def split_at(spans: Sequence[Span], n_chars: int) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Cut the text after its first `n_chars` characters. Reads the text up to the cut."""
    first: list[Span] = []
    left = n_chars
    for index, span in enumerate(spans):
        cut = span.start
        for chunk in read_text([span]):
            if len(chunk) > left:
                cut += len(chunk[:left].encode())
                before, after = Span(span.source, span.start, cut), Span(span.source, cut, span.stop)
                return (*first, before), (after, *spans[index + 1 :])
            cut += len(chunk.encode())
            left -= len(chunk)
        first.append(span)
    return tuple(first), ()


def word_end(text: str, stop: int) -> int:
    """The last position at or before `stop` between two words: before white space that follows another character.

    Returns `stop` if there is none near it (as in Chinese without line breaks).
    """
    for index in range(min(stop, len(text) - 1), max(stop - _SEARCH_CHARS, 0), -1):
        if text[index] in " \n" and not text[index - 1].isspace():
            return index
    return stop


def whole_words(chunks: Iterable[str]) -> Iterator[str]:
    """Yields the text in chunks cut between words (see `word_end`), so that no word is split."""
    kept = ""
    for chunk in chunks:
        text = kept + chunk
        stop = word_end(text, len(text))
        kept = text[stop:]
        if stop:
            yield text[:stop]
    if kept:
        yield kept


def _read_file(path: Path, start: int, stop: int) -> Iterator[str]:
    try:
        with files.open_regular(path) as file:
            file.seek(start)
            position, tail = start, b""
            while position < stop:
                block = file.read(min(BLOCK_BYTES - len(tail), stop - position))
                if not block:
                    raise DataError(f"{path}: the file became shorter while it was read")
                nul = block.find(b"\0")
                if nul >= 0:
                    raise DataError(f"{path}: not a text file: a NUL byte at byte offset {position + nul}")
                data = tail + block
                position += len(block)
                try:
                    # A block may end inside a character: its first bytes are then kept for the next block.
                    text, used = codecs.utf_8_decode(data, "strict", position == stop)
                except UnicodeDecodeError as error:
                    offset = position - len(data) + error.start
                    raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte offset {offset}") from error
                tail = data[used:]
                if text:
                    yield text
    except OSError as error:
        raise unreadable(path, error) from error
