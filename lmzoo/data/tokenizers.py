"""Tokenizers by their kind, `char`, `byte` or `bpe:N`: checks a kind, trains a tokenizer, loads one from a file.

The file is `tokenizer.json`: for char and byte a small JSON of lmzoo ({"lmzoo": "char", ...}), for BPE the JSON of
Hugging Face's `tokenizers`, which other programs read too. Any other JSON of theirs works as well
(`lmzoo.data.pretrained`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmzoo import files
from lmzoo.data.characters import REPLACEMENT, ByteTokenizer, CharTokenizer, UnknownCharacterError, from_json
from lmzoo.data.text import unreadable
from lmzoo.data.tokenizer import TOKENIZER_FILE, StreamDecoder, Tokenizer
from lmzoo.errors import DataError

__all__ = [
    "REPLACEMENT",
    "TOKENIZER_FILE",
    "ByteTokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "UnknownCharacterError",
    "check_spec",
    "load_tokenizer",
    "train_tokenizer",
]

# The largest published tokenizer.json files have about 30 MB.
_MAX_FILE_BYTES = 128 << 20


def check_spec(spec: str) -> int | None:
    """Check a tokenizer's spec: "char", "char+unk", "byte" or "bpe:N". Returns N, or None for the other kinds.

    Raises DataError that names the rule.
    """
    if not isinstance(spec, str):
        raise DataError(f"tokenizer={spec!r} must be char, char+unk, byte or bpe:N")
    if spec in ("char", "char+unk", "byte"):
        return None
    kind, _, number = spec.partition(":")
    if kind != "bpe":
        raise DataError(f"unknown tokenizer {spec!r}: it must be char, char+unk, byte or bpe:N")
    if not (number.isascii() and number.isdigit() and len(number) <= 7 and int(number) >= 256):
        raise DataError(f"tokenizer {spec!r}: N must be a number from 256 (one token for each byte) to 9999999")
    return int(number)


def train_tokenizer(spec: str, chunks: Iterable[str]) -> Tokenizer:
    """Train a tokenizer; pass only the training split. The same text gives the same tokenizer.

    `spec` is "char", "char+unk", "byte" or "bpe:N" (byte-level byte-pair encoding with at most N >= 256 tokens).
    Raises DataError for an unknown spec, for chunks that are no texts, and for `char` without any text.
    """
    vocab_size, chunks = check_spec(spec), _texts(chunks)
    if vocab_size is not None:
        from lmzoo.data.bpe import train_bpe  # imports `tokenizers`

        return train_bpe(vocab_size, chunks)
    if spec == "byte":
        return ByteTokenizer()
    seen: set[str] = set()
    for chunk in chunks:
        seen.update(chunk)
    return CharTokenizer(seen, unknown=spec == "char+unk")


def _texts(chunks: Iterable[str]) -> Iterator[str]:
    """Yields the chunks. Raises DataError for one that is no text."""
    if not isinstance(chunks, Iterable) or getattr(chunks, "ndim", 1) == 0:
        raise DataError(f"chunks={chunks!r} must be a sequence of texts")
    for chunk in chunks:
        if not isinstance(chunk, str):
            raise DataError(f"chunks holds {chunk!r}: each chunk must be a text")
        yield chunk


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer from a `tokenizer.json`, or from a directory: a run, its `checkpoints`, or one checkpoint.

    A tokenizer.json of Hugging Face is used as it is, even if it does not decode every text exactly. In a directory,
    the other files of transformers count, too: tokenizer_config.json, chat templates, the tokens that end a text.
    Raises DataError when there is none or a file is damaged. The file is data: nothing in it is executed.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DataError(f"path={path!r} must be the path of a tokenizer.json or a run")
    file = _find(Path(path))
    try:
        text = files.read_text(file, _MAX_FILE_BYTES)
    except OSError as error:
        raise unreadable(file, error) from error
    except ValueError as error:
        raise DataError(f"{file}: not a tokenizer: {error}") from error
    try:
        content = files.parse_json(text)
    except ValueError as error:
        raise DataError(f"{file}: not a tokenizer: damaged JSON ({error})") from error
    try:
        return _from_content(content, text, file.parent if os.path.isdir(path) else None)
    except DataError as error:
        raise DataError(f"{file}: not a tokenizer that lmzoo can use: {error}") from error


def _find(path: Path) -> Path:
    if not os.path.isdir(path):
        return path
    here = path.resolve()
    places = [here]
    # A checkpoint is RUN/checkpoints/step-N; the tokenizer is in RUN.
    if here.name == "checkpoints":
        places.append(here.parent)
    elif here.parent.name == "checkpoints":
        places.append(here.parent.parent)
    for place in places:
        if os.path.lexists(place / TOKENIZER_FILE):
            return place / TOKENIZER_FILE
    raise DataError(f"no {TOKENIZER_FILE} in {path}")


def _from_content(content: object, text: str, folder: Path | None) -> Tokenizer:
    if not isinstance(content, dict):
        raise DataError("the JSON must be an object")
    if content.get("lmzoo") is not None:
        return from_json(content)
    from lmzoo.data.pretrained import from_hugging_face  # imports `tokenizers`

    return from_hugging_face(content, text, folder)
