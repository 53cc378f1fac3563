"""Tests the two halves of the held-out text: every document is in one of them, whole, and their lengths are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.data.halves import validation_halves
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import DataError


def folder_of(documents: list[str], path: Path) -> str:
    for number, document in enumerate(documents):
        (path / f"{number:04}.txt").write_text(document, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe:300"])
def test_validation_halves_deal_whole_documents(tokenizer: str, tmp_path: Path) -> None:
    documents = [f"Document {n}, é: " + f"word{n} " * (n % 7 + 1) for n in range(200)]
    corpus = load_corpus(folder_of(documents, tmp_path))
    made = train_tokenizer(tokenizer, corpus.chunks("train"))
    held_out = "".join(corpus.chunks("val")).split("\n\n")
    halves = validation_halves(corpus, made)
    texts = [made.decode(half.split.tokens.tolist()) for half in halves]
    dealt = [text.split("\n\n") for text in texts]
    assert sorted(dealt[0] + dealt[1]) == sorted(held_out)
    assert not set(dealt[0]) & set(dealt[1])
    assert [half.documents for half in halves] == [len(each) for each in dealt]
    assert abs(len(texts[0]) - len(texts[1])) <= max(map(len, held_out)) + 2
    assert min(dealt[1]) < max(dealt[0]), "neighbors are divided"
    for half, text in zip(halves, texts, strict=True):
        assert half.split.n_tokens == half.split.tokens.size
        assert (half.split.n_bytes, half.split.n_chars) == (len(text.encode()), len(text))
    assert halves[0].sha256 != halves[1].sha256


def test_validation_halves_cut_a_single_document_in_the_middle(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("one two three four five six seven " * 60)
    corpus = load_corpus(str(file))
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    first, second = (tokenizer.decode(half.split.tokens.tolist()) for half in validation_halves(corpus, tokenizer))
    assert first + second == "".join(corpus.chunks("val"))
    assert abs(len(first) - len(second)) < 20
    assert second.startswith(" ")


def test_validation_halves_refuse_a_text_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("abcdef")
    (tmp_path / "val.txt").write_text("abc")
    corpus = load_corpus(str(tmp_path))
    with pytest.raises(DataError, match=r"val split of .* has 1 token: there is nothing to predict"):
        validation_halves(corpus, train_tokenizer("char", corpus.chunks("train")))


@pytest.mark.parametrize("tokenizer", ["char", "bpe:300"])
def test_validation_halves_of_isolated_documents_have_their_ends(tokenizer: str, tmp_path: Path) -> None:
    documents = [f"Document {n}: " + f"word{n} " * (n % 7 + 1) for n in range(60)]
    corpus = load_corpus(folder_of(documents, tmp_path))
    made = train_tokenizer(tokenizer, corpus.chunks("train"))
    for half, joined in zip(validation_halves(corpus, made, "isolated"), validation_halves(corpus, made), strict=True):
        assert half.split.ends is not None
        assert joined.split.ends is None
        assert len(half.split.ends) == half.documents == joined.documents
        parts = np.split(half.split.tokens, half.split.ends[:-1])
        texts = [made.decode(part.tolist()) for part in parts]
        assert {text.removesuffix("\n\n") for text in texts} <= set(documents)
        assert "".join(texts) == made.decode(joined.split.tokens.tolist())
        assert half.split.n_bytes == joined.split.n_bytes
