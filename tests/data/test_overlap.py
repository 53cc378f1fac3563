"""Tests the measured overlap of the splits against a plain count, and its bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.data import overlap
from lmzoo.data.corpora import Corpus, load_corpus
from lmzoo.data.overlap import Overlap, measure_overlap

Write = Callable[[str, str | bytes], Path]


def _random_text(seed: int, n_chars: int) -> str:
    return "".join(random.Random(seed).choices("abcd \n说", k=n_chars))


def _corpus(write: Write, train: str, val: str) -> Corpus:
    write("d/train.txt", train)
    return load_corpus(str(write("d/val.txt", val).parent))


def _plain(train: str, val: str) -> float:
    seen = {train[i : i + 50] for i in range(len(train) - 49)}
    found = [val[i : i + 50] in seen for i in range(len(val) - 49)]
    return sum(found) / len(found)


def test_measure_overlap_counts_the_sequences_of_50_characters(write: Write) -> None:
    # Copies at the start, at the end, and across the border of two chunks of 1 MiB, twice in the validation split.
    train = _random_text(0, 900_000)
    border = len(train.encode()[: 1 << 20].decode(errors="ignore"))
    assert border < len(train) - 50
    val = train[:60] + "x" + train[-55:] + "y" + 2 * (train[border - 70 : border + 30] + "z" + _random_text(1, 400))
    found = measure_overlap(_corpus(write, train, val))
    assert found.share == _plain(train, val)
    assert 0.1 < found.share < 0.3
    assert found.whole
    assert str(found).endswith("also stand in the training split: a low loss may come from memory.")


def test_measure_overlap_of_new_text_is_zero(write: Write) -> None:
    found = measure_overlap(_corpus(write, _random_text(0, 3000), _random_text(1, 3000)))
    assert found.share == 0
    assert str(found) == "0 % of the 50-character sequences of the validation split also stand in the training split."


def test_measure_overlap_of_a_short_split_is_unknown(write: Write) -> None:
    found = measure_overlap(_corpus(write, "a" * 100, "a" * 49))
    assert found.share is None
    assert "shorter than 50 characters" in str(found)


def test_measure_overlap_of_a_large_text_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MAX_TRAIN_CHARS", 2000)
    monkeypatch.setattr(overlap, "MAX_VAL_CHARS", 500)
    train = _random_text(0, 3000)
    val = train[1900:2100] + _random_text(1, 400)
    found = measure_overlap(_corpus(write, train, val))
    assert found.share == _plain(train[:2000], val[:500])
    assert (found.train_chars, found.val_chars, found.whole) == (2000, 500, False)
    assert "of the first 500 characters of the validation split" in str(found)
    assert "the first 2.00 k characters of the training split" in str(found)


@pytest.mark.parametrize(
    ("share", "text"), [(0.1537, "15 %"), (0.028, "2.8 %"), (0.0042, "0.42 %"), (1e-6, "below 0.01 %"), (0.0, "0 %")]
)
def test_overlap_shows_two_digits(share: float, text: str) -> None:
    assert str(Overlap(share=share, train_chars=9, val_chars=9, whole=True)).startswith(text)
