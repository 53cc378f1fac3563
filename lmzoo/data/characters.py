"""The tokenizers `char` and `byte`, one token per character or per byte, and their file, a small JSON of lmzoo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lmzoo.data.text import utf8
from lmzoo.data.tokenizer import Tokenizer
from lmzoo.errors import DataError

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class UnknownCharacterError(DataError):
    """The text has a character that the `char` tokenizer does not know: `char`, at `position` in characters."""

    def __init__(self, char: str, position: int, where: str = "the text") -> None:
        self.char = char
        self.position = position
        super().__init__(
            f"character {char!r} (U+{ord(char):04X}) at position {position} of {where} was never seen in training; "
            f"use the tokenizer char+unk, byte or bpe:N"
        )


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte; the id is the value of the byte."""

    spec = "byte"
    vocab_size = 256

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8)

    def to_json(self) -> str:
        return json.dumps({"lmzoo": "byte", "version": 1})

    def _bytes_of(self, token: int) -> bytes:
        return bytes((token,))


class CharTokenizer(Tokenizer):
    """One token per character, sorted by code point. With `unknown`, any other character becomes U+FFFD."""

    def __init__(self, chars: Iterable[str], *, unknown: bool = False) -> None:
        found = set(chars) | ({REPLACEMENT} if unknown else set())
        if not found:
            raise DataError("the char tokenizer needs at least one character of training text")
        self.chars = "".join(sorted(found))
        self.unknown = unknown
        self.spec = "char+unk" if unknown else "char"
        self.vocab_size = len(self.chars)
        self._bytes = [utf8(char) for char in self.chars]
        points = np.frombuffer(self.chars.encode("utf-32-le"), dtype=np.uint32)
        # Code point -> id. The last entry is for all code points above the largest known one.
        self._table = np.full(int(points[-1]) + 2, self.chars.index(REPLACEMENT) if unknown else -1, dtype=np.int32)
        self._table[points] = np.arange(self.vocab_size, dtype=np.int32)

    def encode_array(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        if not self.unknown and ids.size and ids.min() < 0:
            position = int(np.argmax(ids < 0))
            raise UnknownCharacterError(text[position], position)
        return ids

    def to_json(self) -> str:
        return json.dumps({"lmzoo": "char", "version": 1, "unknown": self.unknown, "chars": self.chars})

    def _bytes_of(self, token: int) -> bytes:
        return self._bytes[token]


def from_json(content: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer that wrote the object `content` of its `to_json`. Raises DataError if it is damaged."""
    kind = content["lmzoo"]
    if content.get("version") != 1:
        raise DataError(f"version must be 1, not {content.get('version')!r}")
    if kind == "byte":
        return ByteTokenizer()
    if kind == "char":
        return CharTokenizer(_checked_chars(content.get("chars")), unknown=_checked_flag(content.get("unknown")))
    raise DataError(f"lmzoo must be 'char' or 'byte', not {kind!r}")


def _checked_chars(chars: object) -> Sequence[str]:
    if not isinstance(chars, str) or not chars:
        raise DataError("chars must be a text that is not empty")
    utf8(chars)
    if any(one >= other for one, other in pairwise(chars)):
        raise DataError("chars must be different characters in the order of their code points")
    return chars


def _checked_flag(unknown: object) -> bool:
    if not isinstance(unknown, bool):
        raise DataError(f"unknown must be true or false, not {unknown!r}")
    return unknown
