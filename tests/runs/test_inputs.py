"""Tests the progress events of training a tokenizer and of filling the token store."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo.data import load_corpus
from lmzoo.runs import inputs
from lmzoo.train.events import DataEvent, Event


def test_new_tokenizer_and_tokenize_corpus_send_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cats.txt").write_text("All cats are grey at night. " * 200)
    corpus = load_corpus(str(tmp_path / "cats.txt"))
    told: list[Event] = []
    assert inputs.new_tokenizer("bpe:260", corpus, told.append).vocab_size == 260
    assert not told, "no progress for quick work"
    monkeypatch.setattr(inputs, "QUIET_SECONDS", -1.0)
    tokenizer = inputs.new_tokenizer("bpe:260", corpus, told.append)
    assert told[-1] == DataEvent("training the tokenizer", corpus.train.n_chars, corpus.train.n_chars)
    told.clear()
    inputs.tokenize_corpus(corpus, tokenizer, told.append)
    assert told[-1] == DataEvent("tokenizing", corpus.n_bytes, corpus.n_bytes)
    told.clear()
    inputs.tokenize_corpus(corpus, tokenizer, told.append)
    assert not told, "the tokens are in the store already"
