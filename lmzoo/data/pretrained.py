"""Any tokenizer.json of Hugging Face, used as it is by the package `tokenizers`: SentencePiece, WordPiece and others.

A text of a user gets the special tokens that the file asks for, such as one at the beginning, and the names of special
tokens in it become these tokens. Such a tokenizer may change a text: it may drop spaces or replace unknown characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HFTokenizer

from lmzoo.data.bpe import BYTE_NAMES
from lmzoo.data.tokenizers import REPLACEMENT, StreamDecoder, Tokenizer, utf8
from lmzoo.errors import DataError

_MAX_VOCABULARY = 1 << 24  # the largest published vocabularies have about 2^18 tokens
_WINDOW = 64  # tokens that are decoded again with each new one


class PretrainedTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json; `vocab_size` may be larger than its vocabulary, as in padded models.

    An id without a token stands for no text.
    """

    def __init__(self, hf: HFTokenizer, json: str, vocab_size: int | None = None) -> None:
        hf.no_truncation()
        hf.no_padding()
        self._hf = hf
        self._json = json
        self.vocab_size = 1 + max(hf.get_vocab(with_added_tokens=True).values()) if vocab_size is None else vocab_size
        self._added = hf.get_added_tokens_decoder().keys()
        self._byte_level = "ByteLevel" in str(hf.decoder)
        self.spec = f"pretrained:{self.vocab_size}"

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, with the special tokens that the file adds to a text.

        Raises DataError for a lone surrogate, and for a token that the model does not have.
        """
        if not isinstance(text, str):
            raise DataError(f"text={text!r} must be a text")
        return self._checked(text, special=True).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """Returns the token ids of a part of a corpus, to which no special tokens are added."""
        return self._checked(text, special=False)

    def _checked(self, text: str, *, special: bool) -> np.ndarray:
        utf8(text)
        ids = np.array(self._hf.encode(text, add_special_tokens=special).ids, dtype=np.int64)
        if ids.size and ids.max() >= self.vocab_size:
            token = self._hf.id_to_token(int(ids.max()))
            raise DataError(f"the token {token!r} has the id {ids.max()}: the model has vocab_size={self.vocab_size}")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`, special tokens by their names. Raises DataError for an id out of range."""
        if not isinstance(ids, Iterable):
            raise DataError(f"ids={ids!r} must be a sequence of token ids")
        known = [int(token) for token in ids if self.token_bytes(token) is not None]  # raises for an id out of range
        return self._hf.decode(known, skip_special_tokens=False)

    def stream(self) -> StreamDecoder:
        """Returns a decoder that takes one token at a time and returns only complete characters."""
        return _PretrainedStream(self)

    def for_model(self, vocab_size: int) -> PretrainedTokenizer:
        """Returns the tokenizer with the vocabulary of a model, which may be padded, or lack added tokens."""
        return PretrainedTokenizer(self._hf, self._json, vocab_size)

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

    def __init__(self, tokenizer: PretrainedTokenizer) -> None:
        super().__init__(tokenizer)
        self._tokenizer: PretrainedTokenizer = tokenizer
        self._ids: list[int] = []
        self._given = 0  # characters of the text of `_ids` that were returned
        self._bytes = 0  # number of byte tokens at the end

    def feed(self, token: int) -> str:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        self._bytes = self._bytes + 1 if self._tokenizer.is_byte(token) else 0
        if 0 < self._bytes < _WINDOW:  # a later byte can make the whole series invalid
            return ""
        piece = text[self._given :].rstrip(REPLACEMENT)  # it may become a character
        self._given += len(piece)
        if len(self._ids) >= _WINDOW and self._given == len(text):
            self._ids = self._ids[-_WINDOW // 4 :]
            self._given = len(self._tokenizer.decode(self._ids))
        return piece

    def finish(self) -> str:
        return self._tokenizer.decode(self._ids)[self._given :]


def pretrained_from_json(content: dict[str, Any], text: str) -> PretrainedTokenizer:
    """Build the tokenizer of a Hugging Face JSON. Raises DataError if the package `tokenizers` cannot."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise DataError("model must be an object")
    if model.get("dropout"):
        raise DataError("model.dropout must be null: the same text must give the same tokens")
    try:
        hf = HFTokenizer.from_str(text)
        largest = max(hf.get_vocab(with_added_tokens=True).values(), default=-1)
    except BaseException as error:  # the library raises bare Exception, and PanicException, which is none
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(" ".join(str(error).split())) from None
    if not 0 <= largest < _MAX_VOCABULARY:
        raise DataError(f"the vocabulary must have from 1 to {_MAX_VOCABULARY} tokens")
    return PretrainedTokenizer(hf, text)
