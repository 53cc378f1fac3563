"""Tests of Markov chains against enumerated words, and against counts in a text."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest

from lmzoo.data.synthetic.markov import SYMBOLS, Markov
from tests.data.synthetic.likelihood import require_typical


def next_probabilities(source: Markov, order: int) -> dict[str, dict[str, float]]:
    """The table by context, as text."""
    contexts = ("".join(each) for each in product(SYMBOLS, repeat=order))
    return {
        context: dict(zip(SYMBOLS, weights.probabilities.tolist(), strict=True))
        for context, weights in zip(contexts, source.table, strict=True)
    }


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_entropy_rate_agrees_with_the_likelihood_of_its_text(order: int) -> None:
    source = Markov(order)
    table = next_probabilities(source, order)
    text = source.text(3, 60_000)
    nats = [-math.log(table[text[i - order : i]][text[i]]) for i in range(order, len(text))]
    require_typical(nats, source.entropy_rate())


@pytest.mark.parametrize("order", [1, 2])
def test_markov_entropy_rate_agrees_with_the_words_of_the_chain(order: int) -> None:
    """The shares of the contexts, from a uniform start by brute force, give the entropy of the next character."""
    source = Markov(order)
    table = next_probabilities(source, order)
    share = dict.fromkeys(table, 1 / len(table))
    for _ in range(200):
        moved = dict.fromkeys(table, 0.0)
        for context, p in share.items():
            for symbol, q in table[context].items():
                moved[(context + symbol)[1:]] += p * q
        share = moved
    entropy = sum(-share[c] * q * math.log(q) for c in table for q in table[c].values())
    assert source.entropy_rate().nats == pytest.approx(entropy, abs=1e-12)
    assert source.entropy_rate().error == 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_depends_on_exactly_its_order(order: int) -> None:
    """The entropy given one character less is clearly higher; one character more does not help."""
    source = Markov(order)
    text = source.text(0, 100_000)

    def conditional(n: int) -> float:
        words, contexts = (Counter(text[i : i + k] for i in range(len(text) - n)) for k in (n + 1, n))
        return -sum(count * math.log(count / contexts[word[:-1]]) for word, count in words.items()) / (len(text) - n)

    assert conditional(order) == pytest.approx(source.entropy_rate().nats, abs=0.03)
    assert conditional(order - 1) > source.entropy_rate().nats + 0.3
