"""Tests the classes of tokens against their definitions, written out for single tokens."""

from __future__ import annotations

import numpy as np
import pytest

from lmzoo.compare import token_classes
from lmzoo.compare.token_classes import MEANINGS, TokenClasses, repeated, vocabulary_kinds
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import train_tokenizer

TEXT = "the sea was calm and the small ship saw the sea, the shore,\nand a calm sea. "


def slow_repeated(row: list[int], end: int, order: int) -> bool:
    """Return True if the n-gram that ends at `end` occurred before in the row."""
    if end < order - 1:
        return False
    found = row[end - order + 1 : end + 1]
    return any(row[i - order + 1 : i + 1] == found for i in range(order - 1, end))


@pytest.mark.parametrize("order", [1, 2, 3, 9])
def test_repeated_finds_earlier_ngrams_of_the_same_row(order: int) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (4, 8))
    rows[1] = rows[0]  # an n-gram of another row does not count
    rows[2, 5:] = -100  # beyond the end of the text
    found = repeated(rows, order)
    assert found.tolist() == [[slow_repeated(row, end, order) for end in range(8)] for row in rows.tolist()]
    assert found.any() == (order < 4)


def test_repeated_tells_large_tokens_apart() -> None:
    """The number of a trigram must not overflow for the largest vocabularies."""
    high = (1 << 18) - 1
    assert repeated(np.array([[high, high, high, 0, high, high, high]]), 3).tolist() == [[False] * 6 + [True]]
    assert repeated(np.array([[1, 0, 0, 1]]), 2).tolist() == [[False] * 4]


def test_vocabulary_kinds_follow_the_training_counts() -> None:
    tokenizer = train_tokenizer("char", iter([" \nabcde"]))
    names = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    train = tokenizer.encode_array("a" * 45 + " " * 30 + "b" * 15 + "c" * 8 + "\n" * 2)
    frequent, rare, whitespace = (
        {name for name, member in zip(names, kind, strict=True) if member}
        for kind in vocabulary_kinds(train, tokenizer)
    )
    assert frequent == {"a", " "}, "those needed to make up half"
    assert rare == {"c", "\n", "d", "e"}, "beyond the first 90 of 100; d and e never occur"
    assert whitespace == {" ", "\n"}


@pytest.mark.parametrize("stride", [10, 4])
def test_token_classes_are_those_of_each_target_in_its_window(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_classes, "_WINDOWS_AT_A_TIME", 3)
    tokenizer = train_tokenizer("char", iter([TEXT]))
    ids = tokenizer.encode_array(TEXT)
    split = TokenSplit("", "val", ids, ids.size, ids.size, ids.size)
    classes = TokenClasses(split, ids, tokenizer)
    members = classes.members(10, stride)
    assert members.shape == (len(MEANINGS), ids.size - 1)
    frequent, rare, whitespace = vocabulary_kinds(ids, tokenizer)
    for target in range(1, ids.size):
        start = -(-max(0, target - 10) // stride) * stride
        row = ids[start : target + 1].tolist()
        pair, triple = (slow_repeated(row, len(row) - 1, order) for order in (2, 3))
        expected = [pair, triple, not pair, *(kind[ids[target]] for kind in (frequent, rare, whitespace))]
        assert members[:, target - 1].tolist() == expected
    assert classes.members(10, stride) is members, "computed once for all models"
    assert classes.members(12, stride) is not members
