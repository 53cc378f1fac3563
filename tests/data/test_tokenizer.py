"""Tests of what all tokenizers share: decoding is exact, and streams have only complete characters."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from lmzoo.data.tokenizers import StreamDecoder, Tokenizer, train_tokenizer
from lmzoo.errors import DataError

SPECS = ["char", "char+unk", "byte", "bpe:256", "bpe:400"]


def _train(spec: str, text: str) -> Tokenizer:
    return train_tokenizer(spec, [text])


@pytest.mark.parametrize("spec", SPECS)
def test_tokenizer_decodes_exactly_the_encoded_text(spec: str, chinese: str, emoji: str) -> None:
    text = chinese + emoji + " leading, trailing \r\n\t  \u3000\x00\x1f end  "
    tokenizer = _train(spec, text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(type(token) is int and 0 <= token < tokenizer.vocab_size for token in ids)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_tokenizer_vocabulary_sizes_and_ids(chinese: str) -> None:
    char = _train("char", chinese)
    assert char.vocab_size == len(set(chinese))
    assert char.encode("书店") == [sorted(set(chinese)).index(c) for c in "书店"]
    assert _train("byte", chinese).encode("é") == [0xC3, 0xA9]
    assert _train("bpe:300", chinese).vocab_size == 300
    assert len(_train("bpe:400", chinese).encode(chinese)) < len(chinese.encode()) / 2
    # Too little text for 5,000 tokens: the vocabulary is smaller, never larger.
    assert 256 < _train("bpe:5000", "ab ab ab").vocab_size < 300


@pytest.mark.parametrize("spec", ["byte", "bpe:300"])
def test_tokenizer_decodes_exactly_text_that_it_was_not_trained_on(spec: str, chinese: str, emoji: str) -> None:
    tokenizer = _train(spec, "only english here, and here")
    assert tokenizer.decode(tokenizer.encode(chinese + emoji)) == chinese + emoji


@pytest.mark.parametrize("spec", SPECS)
def test_stream_decoder_never_returns_a_part_of_a_character(spec: str, chinese: str, emoji: str) -> None:
    text = chinese + emoji
    # A BPE trained on English has one token per byte of these characters.
    tokenizer = _train(spec, text if spec.startswith("char") else "plain english text")
    stream: StreamDecoder = tokenizer.stream()
    parts = [stream.feed(token) for token in tokenizer.encode(text)]
    assert all("\ufffd" not in part for part in parts)
    assert stream.finish() == ""
    assert "".join(parts) == text


@pytest.mark.parametrize("spec", ["byte", "bpe:300"])
def test_stream_decoder_of_a_prefix_equals_decode(spec: str, emoji: str) -> None:
    tokenizer = _train(spec, "plain english text")
    ids = tokenizer.encode(emoji)
    for stop in range(len(ids)):
        stream = tokenizer.stream()
        parts = [stream.feed(token) for token in ids[:stop]]
        assert "\ufffd" not in "".join(parts)
        assert "".join(parts) + stream.finish() == tokenizer.decode(ids[:stop])
    noise = random.Random(0).choices(range(tokenizer.vocab_size), k=2000)
    stream = tokenizer.stream()
    assert "".join(map(stream.feed, noise)) + stream.finish() == tokenizer.decode(noise)


@pytest.mark.parametrize("spec", SPECS)
def test_decode_refuses_an_id_out_of_range(spec: str, chinese: str) -> None:
    tokenizer = _train(spec, chinese)
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=re.escape(f"token id {token} is out of range")):
            tokenizer.decode([0, token])
        with pytest.raises(DataError, match="out of range"):
            tokenizer.stream().feed(token)


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300"])
def test_encode_refuses_a_lone_surrogate(spec: str, chinese: str) -> None:
    with pytest.raises(DataError, match=r"U\+D800.* at position 1"):
        _train(spec, chinese).encode("书\ud800")


def test_save_names_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*missing/a\.json: No such file or directory$"):
        train_tokenizer("byte", []).save(tmp_path / "missing" / "a.json")


def test_tokenizer_names_wrong_arguments() -> None:
    tokenizer = train_tokenizer("byte", [])
    with pytest.raises(DataError, match="path=None must be a path"):
        tokenizer.save(None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"ids=array\(3\) must be a sequence of token ids"):
        tokenizer.decode(np.array(3))


@pytest.mark.parametrize(("spec", "shown"), [("char", "char, 3 tokens"), ("byte", "byte, 256 tokens")])
def test_tokenizer_repr_is_one_line(spec: str, shown: str) -> None:
    assert repr(_train(spec, "aabc")) == f"<tokenizer {shown}>"


def test_tokenizer_for_model_requires_the_same_vocabulary() -> None:
    tokenizer = _train("char", "abc")
    assert tokenizer.for_model(3) is tokenizer
    with pytest.raises(DataError, match=r"^the tokenizer has vocab_size=3, the model 4$"):
        tokenizer.for_model(4)
