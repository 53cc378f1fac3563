"""Tests the table of n-grams against the equations of Witten and Bell in exact rational arithmetic."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lmzoo.ops.ngram import (
    EMPTY,
    Counts,
    count,
    naive_witten_bell,
    probabilities,
    read,
    start,
    token_probabilities,
)
from tests.cases import each_case

V = 5
CONTEXTS = [(), (0,), (4,), (1, 2), (4, 4), (2, 0, 3), (4, 0, 1), (0, 4, 2, 1), (4, 1, 0, 0, 3)]
Gram = tuple[int, ...]


def texts(rows: int = 3, T: int = 40) -> Tensor:
    """Rows in which some pairs are frequent; the last id never occurs."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(rows, T, generator=generator).square() * (V - 1)).long()


def grams(tokens_BT: Tensor, order: int) -> Counter[Gram]:
    """Counts n-grams one by one."""
    rows, lengths = tokens_BT.tolist(), range(1, order + 1)
    return Counter(tuple(row[i : i + n]) for row in rows for n in lengths for i in range(len(row) - n + 1))


def exact(seen: Counter[Gram], context: Gram) -> list[Fraction]:
    """The estimates from counts of n-grams, from the shortest context to the longest."""
    p = [Fraction(1, V)] * V
    for n in range(len(context) + 1):
        h = context[len(context) - n :]
        after = [seen[(*h, w)] for w in range(V)]
        c, t = sum(after), sum(number > 0 for number in after)
        p = [(number + t * q) / (c + t) for number, q in zip(after, p, strict=True)] if c else p
    return p


def nodes_after(counts: Counts, context: Gram, contexts: int) -> Tensor:
    """Returns the nodes (1, D) after the tokens of `context`."""
    before_BD = start(1, contexts)
    return read(counts, V, torch.tensor([context]), before_BD)[:, -1] if context else before_BD


def found(counts: Counts, context: Gram, order: int) -> list[float]:
    return probabilities(counts, V, nodes_after(counts, context, order))[0].tolist()


def assert_close(ours: list[float], theirs: list[Fraction]) -> None:
    assert ours == pytest.approx([float(p) for p in theirs], rel=1e-13, abs=0)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_probabilities_equal_exact_rational_arithmetic(order: int) -> None:
    tokens_BT = texts()
    counts, seen = count(tokens_BT, V, order), grams(tokens_BT, order)
    for context in CONTEXTS:
        seen_part = context[max(0, len(context) - order + 1) :]
        expected = exact(seen, seen_part)
        assert sum(expected) == 1
        assert_close(found(counts, context, order), expected)
        assert_close(naive_witten_bell(tokens_BT.tolist(), V, seen_part), expected)


@each_case("T", [1, 2, 3])
def test_count_takes_rows_shorter_than_the_order(T: int) -> None:
    tokens_BT = texts(4, T)
    assert_close(found(count(tokens_BT, V, 6), (0, 1), 6), exact(grams(tokens_BT, 6), (0, 1)))


def test_token_probabilities_are_those_of_all_tokens() -> None:
    counts, idx_BT = count(texts(), V, 4), texts(2, 30) + torch.tensor([[0], [1]])
    nodes_BTD = read(counts, V, idx_BT[:, :-1], start(2, 4))
    chosen_BT = probabilities(counts, V, nodes_BTD).gather(2, idx_BT[:, 1:, None])[..., 0]
    torch.testing.assert_close(token_probabilities(counts, V, nodes_BTD, idx_BT[:, 1:]), chosen_BT, rtol=1e-13, atol=0)


@each_case("cut", [1, 2, 3, 17])
def test_read_continues_from_the_contexts_of_the_last_token(cut: int) -> None:
    counts, idx_BT = count(texts(), V, 4), texts(2, 18)
    whole_BTD = read(counts, V, idx_BT, start(2, 4))
    first_BTD = read(counts, V, idx_BT[:, :cut], start(2, 4))
    rest_BTD = read(counts, V, idx_BT[:, cut:], first_BTD[:, -1])
    assert torch.equal(torch.cat([first_BTD, rest_BTD], dim=1), whole_BTD)
    for t in range(18):  # the same contexts read alone, without those before them
        for n in range(min(4, t + 2)):
            alone_BD = nodes_after(counts, tuple(idx_BT[0, t + 1 - n : t + 1].tolist()), n + 1)
            assert alone_BD[0, n] == whole_BTD[0, t, n]


@pytest.mark.parametrize("capacity", [1, 4, 7, 40, 100])
def test_count_keeps_the_most_frequent_ngrams(capacity: int) -> None:
    tokens_BT = texts()
    seen = grams(tokens_BT, 4)
    assert len(seen) > 100
    ranked = sorted(seen, key=lambda gram: (-seen[gram], len(gram), gram))
    kept = Counter({gram: seen[gram] for gram in ranked[:capacity]})
    counts = count(tokens_BT, V, 4, capacity)
    assert (len(counts.keys_N), len(counts.before_N1)) == (capacity, capacity + 1)
    for context in CONTEXTS:
        assert_close(found(counts, context, 4), exact(kept, context[-3:]))


def test_count_leaves_the_rest_of_a_large_table_empty() -> None:
    tokens_BT = texts()
    plain, large = count(tokens_BT, V, 3), count(tokens_BT, V, 3, 1000)
    n = len(plain.keys_N)
    assert torch.equal(large.keys_N[:n], plain.keys_N)
    assert set(large.keys_N[n:].tolist()) == {EMPTY}
    assert large.before_N1[n:].unique().tolist() == [plain.before_N1[-1].item()]
    for context in CONTEXTS:
        assert found(large, context, 3) == found(plain, context, 3)


def test_probabilities_take_contexts_of_any_shape() -> None:
    counts = count(texts(), V, 3)
    nodes_BTD = read(counts, V, texts(2, 6), start(2, 3))
    p_BTV = probabilities(counts, V, nodes_BTD)
    assert p_BTV.shape == (2, 6, V)
    assert torch.equal(probabilities(counts, V, nodes_BTD[1, 2]), p_BTV[1, 2])
    assert probabilities(counts, V, nodes_BTD[:0]).shape == (0, 6, V)


@pytest.mark.parametrize("capacity", [None, 20])
def test_count_leaves_out_the_padding_of_rows(capacity: int | None) -> None:
    tokens_BT = texts(6, 12)
    lengths = [12, 1, 3, 7, 2, 12]
    for row_T, length in zip(tokens_BT, lengths, strict=True):
        row_T[length:] = -100
    counts = count(tokens_BT, V, 4, capacity)
    rows = [row[:length] for row, length in zip(tokens_BT.tolist(), lengths, strict=True)]
    seen = Counter(tuple(row[i : i + n]) for row in rows for n in range(1, 5) for i in range(len(row) - n + 1))
    assert int(counts.before_N1[-1]) == sum(sorted(seen.values(), reverse=True)[:capacity])
    if capacity is None:
        for context in CONTEXTS:
            assert_close(found(counts, context, 4), exact(seen, context[max(0, len(context) - 3) :]))
