"""Byte-level byte-pair encoding (BPE) with Hugging Face's `tokenizers`: any text can be encoded and decoded exactly.

Text is split into words with GPT-2's pattern (Radford et al., 2019, "Language models are unsupervised multitask
learners"), pairs are merged as in Sennrich et al., 2016 (arXiv:1508.07909).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmzoo.data.text import utf8, whole_words, word_end
from lmzoo.data.tokenizer import Tokenizer
from lmzoo.errors import DataError

# Long texts are encoded in chunks of about this many characters, which bounds memory and uses every core.
_CHUNK_CHARS = 1 << 16
# A tokenizer from another program must encode and decode this text without a change: spaces, runs of spaces, digits,
# composed and decomposed accents, line ends of all kinds, Chinese, an emoji of several code points.
_PROBE = "a b  c\t 12345 it's\r\n\n caf\u00e9 cafe\u0301 \u3000中文，好。\U0001f469\u200d\U0001f4bb "


def _byte_names() -> dict[str, int]:
    """The printable characters that GPT-2 writes for the 256 bytes: 188 stand for themselves."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    names = {chr(byte): byte for byte in own}
    others = (byte for byte in range(256) if byte not in own)
    names.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return names


BYTE_NAMES = _byte_names()


class BPETokenizer(Tokenizer):
    """A byte-level BPE tokenizer; `hf` is the Hugging Face tokenizer, `json` the text of its file."""

    def __init__(self, hf: HFTokenizer, json: str) -> None:
        hf.no_truncation()
        hf.no_padding()
        self._hf = hf
        self._json = json
        self._token_bytes = _vocabulary_bytes(hf)
        self.vocab_size = len(self._token_bytes)
        self.spec = f"bpe:{self.vocab_size}"

    def encode_array(self, text: str) -> np.ndarray:
        utf8(text)
        parts = list(_chunks(text))
        encodings = self._hf.encode_batch_fast(parts, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)

    def to_json(self) -> str:
        return self._json

    @property
    def special_tokens(self) -> frozenset[int]:
        return special_tokens(self._hf)

    def for_model(self, vocab_size: int) -> Tokenizer:
        """Returns the tokenizer for a model with this vocabulary, which may be padded: ids that stand for no text.

        Raises `DataError` if the model has fewer ids.
        """
        if vocab_size <= self.vocab_size:
            return super().for_model(vocab_size)
        from lmzoo.data.pretrained import PretrainedTokenizer

        return PretrainedTokenizer(self._hf, self._json, vocab_size, self.conventions)

    def _bytes_of(self, token: int) -> bytes:
        return self._token_bytes[token]


def special_tokens(hf: HFTokenizer) -> frozenset[int]:
    """Returns the ids of the added tokens that a file calls special."""
    return frozenset(token for token, added in hf.get_added_tokens_decoder().items() if added.special)


def train_bpe(vocab_size: int, chunks: Iterable[str]) -> BPETokenizer:
    """Train a BPE tokenizer with at most `vocab_size` tokens, the 256 bytes included. Deterministic."""
    hf = HFTokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    hf.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    hf.train_from_iterator((part for chunk in whole_words(map(_encodable, chunks)) for part in _chunks(chunk)), trainer)
    return BPETokenizer(hf, hf.to_str())


def _encodable(text: str) -> str:
    """Returns `text`. Raises DataError if it contains a lone surrogate."""
    utf8(text)
    return text


def is_plain(content: dict[str, Any]) -> bool:
    """True for the JSON of a tokenizer that is nothing but byte-level BPE with GPT-2's pattern, or is meant to be.

    Others change a text before they split it, add special tokens, have their own pattern, or have added tokens that
    take spaces, so that a text cannot be cut between words, or that the library decodes as if they were bytes.
    """
    parts = [content.get(name) for name in ("model", "pre_tokenizer", "decoder", "post_processor")]
    kinds = [part.get("type") if isinstance(part, dict) else part for part in parts]
    splits = parts[1] if isinstance(parts[1], dict) else {}
    return (
        kinds[0] in ("BPE", None)
        and kinds[1] == kinds[2] == "ByteLevel"
        and kinds[3] in ("ByteLevel", None)
        and content.get("normalizer") is None
        and splits.get("add_prefix_space") is False
        and splits.get("use_regex", True) is True
        and all(_is_simple(token) for token in content.get("added_tokens") or ())
    )


def _is_simple(token: object) -> bool:
    """True for an added token of ASCII letters and signs that leaves the spaces beside it alone."""
    if not isinstance(token, dict):
        return True
    content = str(token.get("content"))
    flags = any(token.get(flag) is True for flag in ("lstrip", "rstrip", "single_word"))
    return content.isascii() and not flags and not any(char.isspace() for char in content)


def bpe_from_json(content: dict[str, Any], text: str) -> BPETokenizer:
    """Build the tokenizer of a Hugging Face JSON.

    Raises DataError unless it is a byte-level BPE that decodes every text exactly.
    """
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise DataError("model.type must be BPE")
    if model.get("dropout"):
        raise DataError("model.dropout must be null: the same text must give the same tokens")
    decoder = content.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        raise DataError("decoder.type must be ByteLevel")
    check_vocabulary(content)
    try:
        hf = HFTokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise DataError(" ".join(str(error).split())) from error
    tokenizer = BPETokenizer(hf, text)
    if tokenizer.decode(tokenizer.encode(_PROBE)) != _PROBE:
        raise DataError("it changes text: encoding and decoding must return the same text")
    return tokenizer


def check_vocabulary(content: dict[str, Any]) -> None:
    """Raise `DataError` unless model.vocab gives an id for each token."""
    vocab = content["model"].get("vocab")
    if not isinstance(vocab, dict) or not all(type(token) is int for token in vocab.values()):
        raise DataError("model.vocab must give an integer id for each token")


def _vocabulary_bytes(hf: HFTokenizer) -> list[bytes]:
    """The bytes of each token, by id. Raises DataError when ids are missing or a token is not made of bytes."""
    names = {token: name for name, token in hf.get_vocab(with_added_tokens=True).items()}
    added = {token: added.content for token, added in hf.get_added_tokens_decoder().items()}
    if sorted(names) != list(range(len(names))):
        raise DataError("model.vocab must use each id from 0 on once")
    found: list[bytes] = []
    for token in range(len(names)):
        try:
            found.append(added[token].encode() if token in added else bytes(BYTE_NAMES[c] for c in names[token]))
        except KeyError as error:
            raise DataError(f"token {token} ({names[token]!r}) is not written in byte-level letters") from error
    missing = 256 - len({token for token in found if len(token) == 1})
    if missing:
        raise DataError(f"the vocabulary lacks {missing} of the 256 single bytes")
    return found


def _chunks(text: str) -> Iterator[str]:
    """Cut a long text between words.

    No word of GPT-2's pattern contains white space after another character, so the chunks give the same tokens as the
    whole text.
    """
    start = 0
    while len(text) - start > _CHUNK_CHARS:
        stop = word_end(text, start + _CHUNK_CHARS)
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]
