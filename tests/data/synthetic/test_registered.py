"""Tests of the synthetic corpora: the same text everywhere, cached, and known by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo.data.corpora import corpus_names, load_corpus
from lmzoo.data.synthetic import SOURCES, entropy_rate, registered, source_text
from lmzoo.errors import DataError


def test_source_text_is_the_recorded_one_and_is_cached(cache: Path) -> None:
    path = source_text("hmm")  # which checks the hash
    assert path.parent == cache / "corpora"
    assert path.stat().st_size == registered.CHARACTERS
    written = path.stat().st_mtime_ns
    assert source_text("hmm") == path
    assert path.stat().st_mtime_ns == written
    path.write_text("damaged")
    assert source_text("hmm").stat().st_size == registered.CHARACTERS


def test_source_text_refuses_a_text_that_is_not_the_recorded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "CHARACTERS", 1000)
    for name in SOURCES:
        with pytest.raises(DataError, match=f"{name}: the text made here has the SHA-256"):
            source_text(name)


def test_load_corpus_opens_every_source() -> None:
    assert set(SOURCES) == set(registered.SHA256) <= set(corpus_names())
    for name in SOURCES:
        corpus = load_corpus(name)
        assert (corpus.name, corpus.sha256) == (name, registered.SHA256[name])
        assert (corpus.train.n_chars, corpus.val.n_chars) == (450_000, 50_000)


def test_entropy_rate_is_known_for_sources_alone() -> None:
    rates = {name: entropy_rate(name) for name in SOURCES}
    assert all(rate is not None and 1 < rate.nats < 1.5 and rate.error < 1e-7 for rate in rates.values())
    assert entropy_rate("pydocs") is None
    assert entropy_rate("./markov1") is None
