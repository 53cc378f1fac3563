"""Tests of byte-level BPE: exact text, Hugging Face's format, and tokenizers that must be refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from lmzoo.data.bpe import bpe_from_json, is_plain
from lmzoo.data.pretrained import PretrainedTokenizer
from lmzoo.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from lmzoo.errors import DataError

Write = Callable[[str, str | bytes], Path]


def _train(spec: str, text: str) -> Tokenizer:
    return train_tokenizer(spec, [text])


def test_bpe_file_is_plain_hugging_face_json(chinese: str) -> None:
    text = chinese + "Some English, too: it's 12 lines.\n\n  indented\n"
    tokenizer = _train("bpe:350", text)
    hf = HFTokenizer.from_str(tokenizer.to_json())
    assert hf.encode(text).ids == tokenizer.encode(text)
    assert hf.decode(tokenizer.encode(text)) == text


def test_bpe_cutting_long_text_does_not_change_its_tokens() -> None:
    rng = random.Random(1)
    text = "".join(rng.choice(["word", " ", "\n", "  ", "é", "12", ", ", "'s"]) for _ in range(200_000))
    tokenizer = _train("bpe:300", text)
    assert tokenizer.encode(text) == HFTokenizer.from_str(tokenizer.to_json()).encode(text).ids
    thirds = [text[:99_999], text[99_999:250_001], text[250_001:]]
    assert train_tokenizer("bpe:300", thirds).sha256 == tokenizer.sha256


def _hf(**parts: object) -> str:
    """The JSON of a byte-level BPE of the 256 bytes in Hugging Face's format, with some parts replaced."""
    vocab = {name: index for index, name in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=[]))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    for name, part in parts.items():
        setattr(hf, name, part)
    return hf.to_str()


def _with_model(**fields: object) -> str:
    content = json.loads(_hf())
    content["model"].update(fields)
    return json.dumps(content)


def test_bpe_from_json_loads_a_hugging_face_file(write: Write, chinese: str) -> None:
    hf = HFTokenizer.from_str(_hf())
    hf.add_special_tokens(["<|endoftext|>"])
    hf.enable_truncation(5)
    hf.enable_padding(length=9)
    tokenizer = load_tokenizer(write("tokenizer.json", hf.to_str()))
    assert tokenizer.vocab_size == 257
    assert tokenizer.decode(tokenizer.encode("a")) == "a"
    assert tokenizer.token_bytes(256) == b"<|endoftext|>"
    assert tokenizer.special_tokens == {256}
    assert tokenizer.decode(tokenizer.encode(chinese)) == chinese


DAMAGED = {
    "no model": ("{}", "model must be an object"),
    "dropout": (_with_model(dropout=0.5), "dropout"),
    "vocab a list": (_with_model(vocab=[]), "model.vocab"),
    "ids of a wrong type": (_with_model(vocab={"a": "0"}), "model.vocab"),
    "ids too large": (_with_model(vocab={"a": 10**30}), "not a tokenizer"),
    "merges of nothing": (_with_model(merges=["foo bar"]), "not a tokenizer"),
}
UNFIT = {
    "holes": (_with_model(vocab={"a": 0, "b": 7}), "each id from 0 on once"),
    "no bytes": (_with_model(vocab={"你": 0}), "byte-level letters"),
    "bytes missing": (_with_model(vocab={"a": 0, "b": 1}), "lacks 254"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_bpe_from_json_refuses_unsuitable_files_in_one_line(
    case: str, require_refused: Callable[[str, str], None]
) -> None:
    require_refused(*DAMAGED[case])


@pytest.mark.parametrize("case", UNFIT)
def test_bpe_from_json_refuses_what_does_not_return_every_text(case: str, write: Write) -> None:
    """Such a file is used as it is, by the package `tokenizers`."""
    text, message = UNFIT[case]
    with pytest.raises(DataError, match=message):
        bpe_from_json(json.loads(text), text)
    assert isinstance(load_tokenizer(write("tokenizer.json", text)), PretrainedTokenizer)


@pytest.mark.parametrize(
    "token", [AddedToken("a b"), AddedToken("ab", lstrip=True), AddedToken("ab", rstrip=True), AddedToken("é")]
)
def test_is_plain_is_false_for_unusual_added_tokens(token: AddedToken) -> None:
    hf = HFTokenizer.from_str(_hf())
    assert is_plain(json.loads(hf.to_str()))
    hf.add_tokens([token])
    assert not is_plain(json.loads(hf.to_str()))


def test_bpe_for_model_takes_a_padded_vocabulary() -> None:
    """GPT-2 has 50,257 tokens, and models of it often 50,304 ids."""
    tokenizer = bpe_from_json(json.loads(_hf()), _hf())
    assert tokenizer.for_model(256) is tokenizer
    padded = tokenizer.for_model(300)
    assert (padded.vocab_size, padded.encode("a b"), padded.decode([64, 299])) == (300, tokenizer.encode("a b"), "a")
    with pytest.raises(DataError, match="the tokenizer has vocab_size=256, the model 255"):
        tokenizer.for_model(255)
