"""The base class of tokenizers: each defines the bytes of its tokens; decoding and streaming follow from them."""

from __future__ import annotations

import codecs
import hashlib
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lmzoo import files
from lmzoo.data.chat import Messages
from lmzoo.data.conventions import Conventions
from lmzoo.errors import DataError
from lmzoo.storage import atomic

TOKENIZER_FILE = "tokenizer.json"


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

    @property
    def special_tokens(self) -> frozenset[int]:
        """The tokens that are no part of a text, such as the beginning of a turn; none for a tokenizer of lmzoo."""
        return frozenset()

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
        it has a second of CPU time, and half a gigabyte of memory.
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
