"""Long work on text is seen: training a tokenizer and filling the store tell how far they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo.data import load_corpus
from lmzoo.runs import inputs
from lmzoo.train.events import DataEvent, Event


def test_progress_of_tokenizer_and_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cats.txt").write_text("All cats are grey at night. " * 200)
    corpus = load_corpus(str(tmp_path / "cats.txt"))
    told: list[Event] = []
    assert inputs.new_tokenizer("bpe:260", corpus, told.append).vocab_size == 260
    assert not told, "what takes no time needs no bar"
    monkeypatch.setattr(inputs, "QUIET_SECONDS", -1.0)
    tokenizer = inputs.new_tokenizer("bpe:260", corpus, told.append)
    assert told[-1] == DataEvent("training the tokenizer", corpus.train.n_chars, corpus.train.n_chars)
    told.clear()
    inputs.tokenised(corpus, tokenizer, told.append)
    assert told[-1] == DataEvent("tokenising", corpus.n_bytes, corpus.n_bytes)
    told.clear()
    inputs.tokenised(corpus, tokenizer, told.append)
    assert not told, "the store has them already"
