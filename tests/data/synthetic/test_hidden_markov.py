"""Tests of the hidden Markov model against enumerated paths, and against the forward algorithm on a text."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product

import pytest

from lmzoo.data.synthetic.hidden_markov import SYMBOLS, WORD, HiddenMarkov
from tests.data.synthetic.likelihood import require_typical


def enumerated_bounds(source: HiddenMarkov, length: int) -> tuple[float, float]:
    """Sum over all hidden paths and all words. The moves are doubly stochastic, so every state has an equal share."""
    states = range(len(source.moves))
    with_start: dict[tuple[int, str], float] = defaultdict(float)
    for path in product(states, repeat=length):
        for word in product(range(len(SYMBOLS)), repeat=length):
            p = 1 / len(states)
            for at, (state, symbol) in enumerate(zip(path, word, strict=True)):
                p *= source.emits[state].probabilities[symbol]
                p *= source.moves[state].probabilities[path[at + 1]] if at + 1 < length else 1
            with_start[path[0], "".join(SYMBOLS[s] for s in word)] += p
    alone: dict[str, float] = defaultdict(float)
    for (_, text), p in with_start.items():
        alone[text] += p
    return (
        entropy(with_start) - entropy(shortened({(s, t): p for (s, t), p in with_start.items()})),
        entropy(alone) - entropy(shortened({(0, t): p for t, p in alone.items()})),
    )


def shortened(joint: dict[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = defaultdict(float)
    for (start, text), p in joint.items():
        found[start, text[:-1]] += p
    return found


def entropy(joint: dict) -> float:  # type: ignore[type-arg]
    return -math.fsum(p * math.log(p) for p in joint.values())


@pytest.mark.parametrize("length", [1, 2, 3])
def test_hidden_markov_bounds_agree_with_all_paths_and_words(length: int) -> None:
    source = HiddenMarkov()
    assert source.bounds(length) == pytest.approx(enumerated_bounds(source, length), abs=1e-12)


def test_hidden_markov_bounds_close_in_on_the_rate() -> None:
    source = HiddenMarkov()
    rate = source.entropy_rate()
    assert 0 < rate.error < 1e-7
    assert (rate.nats - rate.error, rate.nats + rate.error) == pytest.approx(source.bounds(WORD), abs=1e-12)
    bounds = [source.bounds(length) for length in range(1, 8)]
    assert bounds == sorted(bounds, key=lambda pair: pair[0])
    assert bounds == sorted(bounds, key=lambda pair: -pair[1])
    assert all(low < rate.nats < high for low, high in bounds)


def test_hidden_markov_entropy_rate_agrees_with_the_forward_algorithm() -> None:
    source = HiddenMarkov()
    states = range(len(source.moves))
    nats: list[float] = []
    belief = [1.0, 0.0, 0.0]
    for character in source.text(3, 50_000):
        weighted = [b * w.probabilities[SYMBOLS.index(character)] for b, w in zip(belief, source.emits, strict=True)]
        total = sum(weighted)
        nats.append(-math.log(total))
        belief = [sum(weighted[i] / total * source.moves[i].probabilities[j] for i in states) for j in states]
    require_typical(nats, source.entropy_rate())
