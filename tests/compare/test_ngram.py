"""Tests the counted n-grams against their equations, written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from lmzoo.compare.ngram import NGram, bigram_limits
from lmzoo.errors import ConfigError, DataError

TEXT = (
    "the sea was calm and the ship was small; she sells sea shells on the sea shore. "
    "a ship that sails the sea sees the shore when the sea is calm. "
) * 4


def slow_probability(train: list[int], vocab_size: int, context: list[int], token: int, order: int) -> float:
    """Witten & Bell 1991, method C, interpolated, from the definition; `order` 0 is uniform."""
    if order == 0:
        return 1 / vocab_size
    h = tuple(context[len(context) - order + 1 :]) if order > 1 else ()
    following = Counter(train[i] for i in range(order - 1, len(train)) if tuple(train[i - order + 1 : i]) == h)
    shorter = slow_probability(train, vocab_size, context, token, order - 1)
    c, t = sum(following.values()), len(following)
    return (following[token] + t * shorter) / (c + t) if c else shorter


def characters(text: str) -> tuple[np.ndarray, int]:
    alphabet = sorted(set(text))
    return np.array([alphabet.index(c) for c in text], dtype=np.uint16), len(alphabet)


def random_tokens() -> tuple[np.ndarray, int]:
    return np.random.default_rng(0).integers(0, 5, 300).astype(np.uint16), 7  # two ids never occur


@pytest.mark.parametrize("make", [random_tokens, lambda: characters(TEXT)], ids=["random", "text"])
@pytest.mark.parametrize("order", range(1, 7))
def test_probabilities_follow_the_equations(make, order: int) -> None:
    tokens, vocab_size = make()
    train, val = tokens[:250], tokens[250:290].copy()
    val[5] = vocab_size - 1  # in the random tokens: never seen, so every context with it is new
    found = NGram(train, vocab_size, 6).probabilities(val, order)
    for i in range(len(val)):
        wanted = slow_probability(train.tolist(), vocab_size, val[:i].tolist(), int(val[i]), min(order, i + 1))
        assert math.isclose(found[i], wanted, rel_tol=1e-12)


def test_probabilities_of_all_next_tokens_sum_to_one() -> None:
    train, vocab_size = random_tokens()
    model = NGram(train, vocab_size, 6)
    for context in ([0, 1, 2, 3, 4], [6, 6, 6, 6, 6], [1, 1, 6, 2, 0]):
        for order in range(1, 7):
            p = [model.probabilities(np.array([*context, w]), order)[-1] for w in range(vocab_size)]
            assert math.isclose(sum(p), 1.0, rel_tol=1e-12)
            assert min(p) > 0


def test_probabilities_after_an_unseen_context_use_the_shorter_one() -> None:
    train, vocab_size = random_tokens()
    model = NGram(train, vocab_size, 3)
    unseen = np.array([2, 6, 3])  # 6 never occurs, so nothing follows it
    assert model.probabilities(unseen, 3)[-1] == model.probabilities(unseen, 1)[-1]
    assert model.probabilities(unseen, 3)[-1] != model.probabilities(np.array([2, 1, 3]), 3)[-1]


def test_loss_is_the_mean_over_all_tokens_except_the_first() -> None:
    tokens, vocab_size = characters(TEXT)
    model = NGram(tokens[:400], vocab_size, 4)
    p = [
        slow_probability(tokens[:400].tolist(), vocab_size, tokens[400 : 400 + i].tolist(), int(w), min(4, i + 1))
        for i, w in enumerate(tokens[400:460])
    ]
    assert math.isclose(model.loss(tokens[400:460]), -sum(map(math.log, p[1:])) / 59, rel_tol=1e-12)


def test_bigram_limits_equal_a_table_of_counts() -> None:
    tokens, vocab_size = characters(TEXT)
    train, val = tokens[:400].tolist(), tokens[400:].tolist()
    table: dict[int, Counter[int]] = defaultdict(Counter)
    for a, b in pairwise(train):
        table[a][b] += 1
    exact = [math.log(table[a][b] / table[a].total()) for a, b in pairwise(train)]
    smoothed = [math.log((table[a][b] + 1) / (table[a].total() + vocab_size)) for a, b in pairwise(val)]
    on_train, on_val = bigram_limits(tokens[:400], vocab_size, tokens[400:])
    assert math.isclose(on_train, -sum(exact) / len(exact), rel_tol=1e-12)
    assert math.isclose(on_val, -sum(smoothed) / len(smoothed), rel_tol=1e-12)


def test_ngram_names_bad_input() -> None:
    tokens = np.array([0, 1, 2, 1, 0, 2, 1])
    with pytest.raises(ConfigError, match=r"order=7 must be in \[1, 6\]"):
        NGram(tokens, 3, 7)
    with pytest.raises(ConfigError, match=r"order=3 must be in \[1, 2\]"):
        NGram(tokens, 3, 2).loss(tokens, 3)
    with pytest.raises(DataError, match=r"the id 2: ids must be in \[0, vocab_size=2\)"):
        NGram(tokens, 2)
    with pytest.raises(DataError, match="at least 2 tokens"):
        NGram(tokens[:1], 3)
    with pytest.raises(DataError, match="order=6 needs at least that many"):
        NGram(tokens[:4], 3)
