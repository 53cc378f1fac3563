"""Tests that AutoTokenizer of transformers gives the ids and the texts of the tokenizer of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads

import pytest
from transformers import AutoTokenizer

import lmzoo
from lmzoo.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer, train_tokenizer
from lmzoo.errors import DataError
from lmzoo.hf import export
from lmzoo.hf.tokenizer import hf_json, tokenizer_files
from tests.data.test_pretrained import TEXTS, byte_fallback, byte_level
from tests.helpers import SMALL

KNOWN = "".join(TEXTS) + "thn't|\r\n\t \u0000"


def _pretrained(make: Callable[[], object], folder: Path) -> Tokenizer:
    getattr(make(), "save")(str(folder / "source.json"))  # noqa: B009
    return load_tokenizer(folder / "source.json")


MAKERS: dict[str, Callable[[Path], Tokenizer]] = {
    "byte": lambda _: ByteTokenizer(),
    "char": lambda _: CharTokenizer(KNOWN),
    "char+unk": lambda _: CharTokenizer("abcdel Ho\n", unknown=True),
    "bpe": lambda _: train_tokenizer("bpe:300", [KNOWN * 3, "the cat sat on the mat " * 20]),
    "byte level": lambda folder: _pretrained(byte_level, folder),
    "byte fallback": lambda folder: _pretrained(byte_fallback, folder),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_tokenizer_files_give_the_same_ids_and_texts_in_transformers(kind: str, tmp_path: Path) -> None:
    ours = MAKERS[kind](tmp_path)
    export(lmzoo.create_model("llama", vocab_size=ours.vocab_size, **SMALL), tmp_path / "out", tokenizer=ours)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path / "out"), load_tokenizer(tmp_path / "out")
    for text in [*TEXTS, "a\r\nb | don't\t\tdo  that "]:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids == again.encode(text), repr(text)
        assert theirs.decode(ids) == ours.decode(ids) == again.decode(ids), repr(text)
    assert theirs.model_max_length == SMALL["context_length"]
    assert len(theirs) <= ours.vocab_size
    if kind not in ("byte", "char", "char+unk"):
        assert (tmp_path / "out/tokenizer.json").read_text() == ours.to_json()


def test_tokenizer_files_decode_every_token_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(hf_json(ByteTokenizer()))
    again = load_tokenizer(tmp_path)
    assert [again.token_bytes(token) for token in range(256)] == [bytes([token]) for token in range(256)]


def test_tokenizer_files_refuse_an_unknown_character(tmp_path: Path) -> None:
    for name, text in tokenizer_files(CharTokenizer("abc"), 16).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match="UNK"):
        AutoTokenizer.from_pretrained(tmp_path)("abcd")
    with pytest.raises(DataError, match=r"^the text cannot be encoded: WordLevel error: Missing \[UNK\] token"):
        load_tokenizer(tmp_path).encode("abcd")
