"""Tests the counted n-grams against their equations, written out with dictionaries, and against nltk."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lmzoo.compare import ngram
from lmzoo.compare.ngram import NGram, bigram_limits, count_references
from lmzoo.compare.windows import training_rows
from lmzoo.data.batches import Windows
from lmzoo.data.corpora import load_corpus
from lmzoo.data.store import TokenSplit, open_store
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import ConfigError, DataError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.train.config import TrainConfig

if TYPE_CHECKING:
    from nltk.lm.api import LanguageModel

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


def slow_rows(rows: list[list[int]], vocab_size: int, h: tuple[int, ...], token: int) -> float:
    """The same for text in rows, each counted separately."""
    n = len(h)
    following = Counter(row[i] for row in rows for i in range(n, len(row)) if tuple(row[i - n : i]) == h)
    shorter = slow_rows(rows, vocab_size, h[1:], token) if h else 1 / vocab_size
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


def model_of_nltk(order: int, rows: list[list[str]], vocabulary: list[str]) -> LanguageModel:
    """Return nltk's model, fitted to the rows. nltk imports scikit-learn and pandas, which no other test needs."""
    from nltk.lm.models import InterpolatedLanguageModel
    from nltk.lm.smoothing import WittenBell
    from nltk.util import everygrams

    class FromUniform(WittenBell):
        """nltk's estimate begins with relative frequencies; ours applies the same formula to the empty context."""

        def unigram_score(self, word: str) -> float:
            seen = self.counts.unigrams
            uniform = 1 / (len(self.vocab) - 1)  # without nltk's <UNK>
            return (seen[word] + len(seen) * uniform) / (seen.N() + len(seen))

    model = InterpolatedLanguageModel(FromUniform, order)
    model.fit((everygrams(row, max_len=order) for row in rows), vocabulary)
    return model


@pytest.mark.parametrize("order", [2, 3, 6])
def test_probabilities_are_those_of_nltk(order: int) -> None:
    tokens, vocab_size = characters(TEXT)
    train, val = tokens[:420].reshape(-1, 60), tokens[420:470]
    words = [[str(token) for token in row] for row in train.tolist()]
    theirs = model_of_nltk(order, words, [str(token) for token in range(vocab_size)])
    found = NGram(train, vocab_size, 6).probabilities(val, order)
    for i, word in enumerate(map(str, val.tolist())):
        context = [str(token) for token in val[max(0, i - order + 1) : i]]
        assert math.isclose(found[i], theirs.score(word, context), rel_tol=1e-12)


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


@pytest.mark.parametrize(
    ("context_length", "stride"), [(1, 1), (3, 3), (3, 2), (4, 3), (7, 7), (7, 6), (7, 2), (59, 59), (100, 100)]
)
def test_loss_is_the_mean_over_all_tokens_except_the_first_in_windows(
    context_length: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram, "_TOKENS_AT_A_TIME", 20)
    tokens, vocab_size = characters(TEXT)
    train, val = tokens[:400].tolist(), tokens[400:460].tolist()
    model = NGram(tokens[:400], vocab_size, 4)
    logs = []
    for i in range(1, len(val)):
        start = -(-max(0, i - context_length) // stride) * stride  # the first token that a model sees in its window
        order = min(4, i - start + 1)
        logs.append(math.log(slow_probability(train, vocab_size, val[start:i], val[i], order)))
    found = model.loss(tokens[400:460], context_length=context_length, stride=stride)
    assert math.isclose(found, -sum(logs) / 59, rel_tol=1e-12)


@pytest.mark.parametrize("order", range(1, 7))
def test_ngram_counts_windows_without_context_across_them(order: int) -> None:
    tokens, vocab_size = random_tokens()
    rows = tokens[:294].reshape(-1, 14)
    counted = NGram(rows, vocab_size, 6).next_probabilities(np.array([1, 2, 3, 0, 1])[6 - order :])
    h = tuple([1, 2, 3, 0, 1][6 - order :])
    expected = [slow_rows(rows.tolist(), vocab_size, h, token) for token in range(vocab_size)]
    assert np.allclose(counted, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("isolated", [False, True])
def test_count_references_of_a_carried_context_read_whole_rows(text: Path, isolated: bool) -> None:
    corpus = load_corpus(str(text))
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    store = open_store(corpus, tokenizer)
    tokens, config = np.asarray(store.val.tokens[:120]), TrainConfig(steps=20, batch_size=4, warmup_steps=0)
    ends = np.array([40, 41, 90, 120]) if isolated else None
    reported = TokenSplit("", "val", tokens, 120, 120, 120, ends)
    found, _ = count_references(store, reported, tokenizer.vocab_size, config, 8, carried=True)
    counts = NGram(training_rows(store.train, config, 8, 10_000), tokenizer.vocab_size, 6)
    rows = [tokens] if ends is None else [tokens[:40], tokens[41:90], tokens[90:]]
    logs = np.concatenate([np.log(counts.probabilities(row, 3)[1:]) for row in rows])
    assert found[2].loss == pytest.approx(-logs.mean(), rel=1e-12)
    assert found[2].loss != count_references(store, reported, tokenizer.vocab_size, config, 8)[0][2].loss


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


def test_bigram_limits_of_rows_leave_out_the_pairs_between_them() -> None:
    found = bigram_limits(np.array([[0, 1, 0], [1, 2, 1]]), 3, np.array([0, 1]))
    # Pairs: 0 1, 1 0, 1 2, 2 1; after 1, either of two tokens follows.
    assert math.isclose(found[0], 2 * math.log(2) / 4, rel_tol=1e-12)
    assert math.isclose(found[1], -math.log(2 / 4), rel_tol=1e-12)


def test_ngram_names_bad_input() -> None:
    tokens = np.array([0, 1, 2, 1, 0, 2, 1])
    with pytest.raises(ConfigError, match=r"order=7 must be in \[1, 6\]"):
        NGram(tokens, 3, 7)
    with pytest.raises(ConfigError, match=r"order=3 must be in \[1, 2\]"):
        NGram(tokens, 3, 2).loss(tokens, 3, context_length=4)
    with pytest.raises(DataError, match=r"the id 2: ids must be in \[0, vocab_size=2\)"):
        NGram(tokens, 2)
    with pytest.raises(DataError, match="at least 2 tokens"):
        NGram(tokens[:1], 3)
    with pytest.raises(DataError, match="order=6 needs at least that many"):
        NGram(tokens[:4], 3)


def windows_of(rows: np.ndarray) -> Windows:
    """The rows as windows that count every target but padding."""
    rows_BS = torch.from_numpy(rows)
    targets_BT = rows_BS[:, 1:]
    return Windows(rows_BS[:, :-1].clamp(min=0), targets_BT, targets_BT != IGNORE_INDEX)


def test_loss_of_windows_leaves_out_padding() -> None:
    tokens, vocab_size = characters(TEXT)
    rows = [tokens[start : start + size].tolist() for start, size in ((0, 9), (9, 2), (11, 30), (41, 1), (42, 8))]
    padded = np.full((5, 30), IGNORE_INDEX)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    model = NGram(padded, vocab_size, 3)
    logs = [
        math.log(slow_rows(rows, vocab_size, tuple(row[max(0, i - 2) : i]), row[i]))
        for row in rows
        for i in range(1, len(row))
    ]
    found = model.loss_of_windows(windows_of(part) for part in (padded[:2], padded[2:]))
    assert math.isclose(found, -sum(logs) / len(logs), rel_tol=1e-12)


def test_bigram_limits_leave_out_pairs_with_padding() -> None:
    train = np.array([[0, 1, 0], [1, 2, IGNORE_INDEX]])
    # Pairs: 0 1, 1 0, 1 2; after 1, either of two tokens follows.
    found = bigram_limits(train, 3, np.array([0, 1, IGNORE_INDEX, 2, 0]))
    assert math.isclose(found[0], 2 * math.log(2) / 3, rel_tol=1e-12)
    assert math.isclose(found[1], -(math.log(2 / 4) + math.log(1 / 3)) / 2, rel_tol=1e-12)
