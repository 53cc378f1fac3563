"""Markov chains with random transition probabilities. Legend: C contexts."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np

from lmzoo.data.synthetic.source import EntropyRate, Source, Weights, random_bits, stationary

SYMBOLS = "abcdefgh"
_SPREAD = 8  # probabilities of one context are in ratios up to 2 to this power
_TABLE = 1 << 32  # of the key of the table; the keys of texts are below


class Markov(Source):
    """Each character depends on the `order` characters before it, by a table of random probabilities.

    The entropy rate is the mean entropy of the next character over the stationary distribution of the contexts (Cover
    and Thomas, "Elements of Information Theory", theorem 4.2.4).
    """

    def __init__(self, order: int) -> None:
        self.title = f"a Markov chain of order {order} over {len(SYMBOLS)} characters"
        self._order, bits = order, random_bits(_TABLE + order)
        contexts = range(len(SYMBOLS) ** order)
        self.table = [Weights([1 << next(bits) % _SPREAD for _ in SYMBOLS]) for _ in contexts]

    def text(self, seed: int, count: int) -> str:
        context, n, contexts = 0, len(SYMBOLS), len(self.table)
        found: list[str] = []
        for number in islice(random_bits(seed, self._order), count):
            symbol = self.table[context].draw(number)
            found.append(SYMBOLS[symbol])
            context = (context * n + symbol) % contexts
        return "".join(found)

    def entropy_rate(self) -> EntropyRate:
        contexts, n = len(self.table), len(SYMBOLS)
        transition_CC = np.zeros((contexts, contexts))
        for context, weights in enumerate(self.table):
            for symbol, probability in enumerate(weights.probabilities):
                transition_CC[context, (context * n + symbol) % contexts] += probability
        share_C = stationary(transition_CC)
        return EntropyRate(math.fsum(p * w.entropy for p, w in zip(share_C, self.table, strict=True)), 0.0)
