"""Any tokenizer.json of Hugging Face, used as it is by the package `tokenizers`: SentencePiece, WordPiece and others.

A text of a user gets the special tokens that the file asks for, such as one at the beginning, and the names of special
tokens in it become these tokens. Such a tokenizer may change a text: it may drop spaces or replace unknown characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HFTokenizer

from lmzoo import files
from lmzoo.data.bpe import BYTE_NAMES, bpe_from_json, check_vocabulary, is_plain, special_tokens
from lmzoo.data.characters import REPLACEMENT
from lmzoo.data.conventions import Conventions
from lmzoo.data.text import utf8
from lmzoo.data.tokenizer import StreamDecoder, Tokenizer
from lmzoo.data.tokenizer_config import library_errors, read_conventions
from lmzoo.errors import DataError

_MAX_VOCABULARY = 1 << 24  # the largest published vocabularies have about 2^18 tokens
_WINDOW = 64  # tokens that are decoded again with each new one
# Replaced in this order. Each begins with a space, and none is longer than four characters.
_CLEAN = {
    **{f" {sign}": sign for sign in ".?!,"},
    " ' ": "'",
    **{f" {end}": end for end in ("n't", "'m", "'s", "'ve", "'re")},
}
_SAFE = re.compile(r"[^ ]{4,}")  # no replacement reaches from before its end to behind it


class PretrainedTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json; `vocab_size` may be larger than its vocabulary, as in padded models.

    An id without a token stands for no text.
    """

    def __init__(
        self, hf: HFTokenizer, text: str, vocab_size: int | None = None, conventions: Conventions | None = None
    ) -> None:
        hf.no_truncation()
        hf.no_padding()
        self._hf = hf
        self._json = text
        self.vocab_size = 1 + max(hf.get_vocab(with_added_tokens=True).values()) if vocab_size is None else vocab_size
        self._added = hf.get_added_tokens_decoder().keys()
        self.conventions = Conventions() if conventions is None else conventions
        hf.encode_special_tokens = self.conventions.split_special
        self._byte_level = "ByteLevel" in str(hf.decoder)
        self.spec = f"pretrained:{self.vocab_size}"

    @property
    def special_tokens(self) -> frozenset[int]:
        return special_tokens(self._hf)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, with the special tokens that the file adds to a text.

        Raises DataError for a lone surrogate, for a token that the model does not have, and for a character that has no
        token, unless the file names one for all of these.
        """
        if not isinstance(text, str):
            raise DataError(f"text={text!r} must be a text")
        return self._checked(text, special=True).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """Returns the token ids of a part of a corpus, to which no special tokens are added."""
        return self._checked(text, special=False)

    def _checked(self, text: str, *, special: bool) -> np.ndarray:
        utf8(text)
        with library_errors():  # for an unknown character, if the model has no token for it
            ids = np.array(self._hf.encode(text, add_special_tokens=special).ids, dtype=np.int64)
        if ids.size and ids.max() >= self.vocab_size:
            token = self._hf.id_to_token(int(ids.max()))
            raise DataError(f"the token {token!r} has the id {ids.max()}: the model has vocab_size={self.vocab_size}")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`, special tokens by their names. Raises DataError for an id out of range."""
        if not isinstance(ids, Iterable):
            raise DataError(f"ids={ids!r} must be a sequence of token ids")
        text = self.decode_as_it_is(ids)
        return _cleaned(text) if self.conventions.clean_up else text

    def decode_as_it_is(self, ids: Iterable[int]) -> str:
        """`decode`, but for the removal of spaces before punctuation."""
        known = [int(token) for token in ids if self.token_bytes(token) is not None]  # raises for an id out of range
        return self._hf.decode(known, skip_special_tokens=False)

    def stream(self, before: Sequence[int] = ()) -> StreamDecoder:
        return _CleanedStream(self, before) if self.conventions.clean_up else _PretrainedStream(self, before)

    def for_model(self, vocab_size: int) -> PretrainedTokenizer:
        """Returns the tokenizer with the vocabulary of a model, which may be padded, or lack added tokens."""
        return PretrainedTokenizer(self._hf, self._json, vocab_size, self.conventions)

    def to_json(self) -> str:
        return self._json

    def is_byte(self, token: int) -> bool:
        """True for a token such as <0x0A> of SentencePiece, one byte of a character that has no token."""
        name = self._hf.id_to_token(token) or ""
        return name.startswith("<0x") and name.endswith(">") and len(name) == 6

    def _bytes_of(self, token: int) -> bytes:
        """Returns the bytes that the token stands for within a text."""
        name = self._hf.id_to_token(token) or ""
        if token in self._added:
            return name.encode()
        if self.is_byte(token):
            return bytes.fromhex(name[3:5])
        if self._byte_level:
            return b"".join(bytes([BYTE_NAMES[char]]) if char in BYTE_NAMES else char.encode() for char in name)
        return name.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").removeprefix("##").encode()


class _PretrainedStream(StreamDecoder):
    """Decodes the last tokens again with each new one, because what a token stands for depends on its neighbors."""

    def __init__(self, tokenizer: PretrainedTokenizer, before: Sequence[int] = ()) -> None:
        super().__init__(tokenizer)
        self._tokenizer: PretrainedTokenizer = tokenizer
        self._ids = [*before[-_WINDOW // 4 :]]
        self._given = len(tokenizer.decode_as_it_is(self._ids))  # characters of the text of `_ids` that were returned

    def feed(self, token: int) -> str:
        self._tokenizer.token_bytes(token)  # raises for an id out of range
        self._ids.append(token)
        if self._tokenizer.is_byte(token):  # a later byte can make the whole series invalid
            return ""
        text = self._tokenizer.decode_as_it_is(self._ids)
        piece = text[self._given :].rstrip(REPLACEMENT)  # it may become a character
        self._given += len(piece)
        if len(self._ids) >= _WINDOW and self._given == len(text):
            self._ids = self._ids[-_WINDOW // 4 :]
            self._given = len(self._tokenizer.decode_as_it_is(self._ids))
        return piece

    def finish(self) -> str:
        return self._tokenizer.decode_as_it_is(self._ids)[self._given :]


class _CleanedStream(StreamDecoder):
    """Removes spaces before punctuation, and keeps a text back that may be the beginning of such a place."""

    def __init__(self, tokenizer: PretrainedTokenizer, before: Sequence[int] = ()) -> None:
        super().__init__(tokenizer)
        self._stream = _PretrainedStream(tokenizer, before)
        self._held = ""

    def feed(self, token: int) -> str:
        self._held += self._stream.feed(token)
        ends = [match.end() for match in _SAFE.finditer(self._held)]
        ready, self._held = (self._held[: ends[-1]], self._held[ends[-1] :]) if ends else ("", self._held)
        return _cleaned(ready)

    def finish(self) -> str:
        return _cleaned(self._held + self._stream.finish())


def _cleaned(text: str) -> str:
    """Returns a text as transformers cleans it up: without spaces before punctuation and English endings."""
    for found, instead in _CLEAN.items():
        text = text.replace(found, instead)
    return text


def from_hugging_face(content: dict[str, Any], text: str, folder: Path | None = None) -> Tokenizer:
    """Builds the tokenizer of a Hugging Face JSON, with the other files of its folder, as transformers does.

    Plain byte-level BPE becomes a `BPETokenizer`. Raises `DataError` if the package `tokenizers` cannot build it.
    """
    model = content.get("model")
    if not isinstance(model, dict):
        raise DataError("model must be an object")
    if model.get("dropout"):
        raise DataError("model.dropout must be null: the same text must give the same tokens")
    with library_errors():
        if is_plain(content):
            check_vocabulary(content)  # in clearer words than the library
        if folder is None:
            hf, conventions = HFTokenizer.from_str(text), Conventions()
        else:
            hf, text, conventions = read_conventions(folder, content, text)
        largest = max(hf.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < _MAX_VOCABULARY:
        raise DataError(f"the vocabulary must have from 1 to {_MAX_VOCABULARY} tokens")
    if is_plain(files.parse_json(text)) and not (conventions.split_special or conventions.clean_up):
        with suppress(DataError):  # it does not return every text exactly, or lacks ids
            tokenizer = bpe_from_json(files.parse_json(text), text)
            tokenizer.conventions = conventions
            return tokenizer
    return PretrainedTokenizer(hf, text, conventions=conventions)
