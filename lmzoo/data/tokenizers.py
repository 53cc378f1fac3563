"""Tokenizers `char`, `byte` and `bpe:N` behind one small class; decoding returns the encoded text exactly.

A tokenizer defines the bytes of each token; decoding and streaming are derived from them for all kinds. The file is
`tokenizer.json`: for char and byte a small JSON of lmzoo ({"lmzoo": "char", ...}), for BPE the JSON of Hugging Face's
`tokenizers`, which other programs read too. Any other JSON of theirs works as well (`lmzoo.data.pretrained`).
"""

from __future__ import annotations

import codecs
import hashlib
import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lmzoo import files
from lmzoo.data.chat import Messages
from lmzoo.data.conventions import Conventions
from lmzoo.data.text import unreadable
from lmzoo.errors import DataError
from lmzoo.storage import atomic

TOKENIZER_FILE = "tokenizer.json"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# The largest published tokenizer.json files have about 30 MB.
_MAX_FILE_BYTES = 128 << 20


class UnknownCharacterError(DataError):
    """The text has a character that the `char` tokenizer does not know: `char`, at `position` in characters."""

    def __init__(self, char: str, position: int, where: str = "the text") -> None:
        self.char = char
        self.position = position
        super().__init__(
            f"character {char!r} (U+{ord(char):04X}) at position {position} of {where} was never seen in training; "
            f"use the tokenizer char+unk, byte or bpe:N"
        )


class Tokenizer(ABC):
    """Base class of tokenizers. `spec` is the kind: "char", "char+unk", "byte", or "bpe:N" with N = `vocab_size`."""

    spec: str
    vocab_size: int
    conventions: Conventions = Conventions()  # of texts, beside the tokens: chat templates, tokens that end a text

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """Returns the token ids of `text` as a one-dimensional integer array. Raises DataError as `encode` does."""

    @abstractmethod
    def to_json(self) -> str:
        """Returns the JSON that `save` writes."""

    @abstractmethod
    def _bytes_of(self, token: int) -> bytes:
        """`token_bytes` for an id that is in range."""

    def __repr__(self) -> str:
        return f"<tokenizer {self.spec}, {self.vocab_size:,} tokens>"

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`.

        Raises DataError for a character without a token (`char`), naming it and its position, and for a lone
        surrogate, which cannot be encoded in UTF-8.
        """
        if not isinstance(text, str):
            raise DataError(f"text={text!r} must be a text")
        return self.encode_array(text).tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`. Incomplete characters become U+FFFD. Raises DataError for an id out of range."""
        if not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) == 0:  # a tensor without axes
            raise DataError(f"ids={ids!r} must be a sequence of token ids")
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Returns the exact UTF-8 bytes of a token; for `byte` and `bpe` they may be a part of a character.

        Raises DataError for an id out of range.
        """
        try:
            index = operator.index(token)  # also numpy and torch integers
        except TypeError:
            raise DataError(f"token id {token!r} must be an integer") from None
        if not 0 <= index < self.vocab_size:
            raise DataError(f"token id {index} is out of range: the vocabulary has the ids 0 to {self.vocab_size - 1}")
        return self._bytes_of(index)

    def for_model(self, vocab_size: int) -> Tokenizer:
        """Returns the tokenizer for a model with this vocabulary. Raises DataError if it is of another size."""
        if self.vocab_size != vocab_size:
            raise DataError(f"the tokenizer has vocab_size={self.vocab_size}, the model {vocab_size}")
        return self

    def stream(self, before: Sequence[int] = ()) -> StreamDecoder:  # noqa: ARG002 (our own tokens stand for themselves)
        """Returns a decoder that takes one token at a time and returns only complete characters.

        `before` are the tokens of a prompt, whose text is not returned: what a token stands for can depend on them.
        """
        return StreamDecoder(self)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end a generated text, such as the end of a turn; none for a tokenizer of lmzoo."""
        return tuple(token for token in self.conventions.stop_tokens if token < self.vocab_size)

    @overload
    def apply_chat_template(
        self, messages: Messages, *, tokenize: Literal[True] = True, **options: Any
    ) -> list[int]: ...

    @overload
    def apply_chat_template(self, messages: Messages, *, tokenize: Literal[False], **options: Any) -> str: ...

    def apply_chat_template(self, messages: Messages, *, tokenize: bool = True, **options: Any) -> list[int] | str:
        """Returns the token ids of a chat, a list of messages such as {"role": "user", "content": "Hello"}.

        The chat template of the model makes a text of it, which contains its special tokens; with `tokenize=False` this
        text is returned. The name, the arguments and the result are those of transformers: `add_generation_prompt` ends
        the text where the answer begins, `continue_final_message` within the last message; `tools`, `documents`,
        `chat_template`, and any variable of the template. Raises `DataError` if there is no template, or if it fails:
        it has a second, and half a gigabyte of memory.
        """
        text = self.conventions.chat.render(messages, **options)
        return self.encode_array(text).tolist() if tokenize else text

    @property
    def sha256(self) -> str:
        """The SHA-256 of the JSON in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def files(self) -> dict[str, str]:
        """Returns the texts of the files that `load_tokenizer` reads from a directory, by name."""
        return {TOKENIZER_FILE: self.to_json(), **self.conventions.files()}

    def save(self, path: str | Path) -> None:
        """Write the files to the directory `path`, or the JSON alone to the file `path`.

        Raises DataError if they cannot be written.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(f"path={path!r} must be a path")
        target = Path(path)
        found = {target / name: text for name, text in self.files().items()}
        for file, text in found.items() if os.path.isdir(target) else [(target, self.to_json())]:
            with atomic.new_file(file, error=_cannot_write) as write:
                write(text.encode())


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {files.reason(error)}")


class StreamDecoder:
    """Decodes one token at a time and keeps bytes back until they form a complete character.

    The concatenated results of `feed` and `finish` equal `decode` of all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Returns the characters that `token` completes, possibly "". Raises DataError for an id out of range."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """Returns the rest: "", or U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


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


def utf8(text: str) -> bytes:
    """Returns the UTF-8 bytes of `text`. Raises DataError if it contains a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        char = text[error.start]
        raise DataError(f"U+{ord(char):04X} at position {error.start} is a lone surrogate, not a character") from error


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
        from lmzoo.data.bpe import train_bpe

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
    kind = content.get("lmzoo")
    if kind is None:
        from lmzoo.data.pretrained import from_hugging_face

        return from_hugging_face(content, text, folder)
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
