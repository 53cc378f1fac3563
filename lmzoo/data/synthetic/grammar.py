"""A probabilistic context-free grammar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmzoo.data.synthetic.source import EntropyRate, Source, Weights, random_bits


@dataclass(frozen=True)
class Rules:
    """The right sides that may replace a symbol, and their integer weights."""

    sides: tuple[str, ...]
    weights: Weights


# Capital letters are replaced, all other characters are text. A line is a sum of products of letters and parentheses.
START = "S"
RULES = {
    "S": Rules(("E\n",), Weights([1])),
    "E": Rules(("T", "T+E"), Weights([5, 3])),
    "T": Rules(("F", "F*T"), Weights([3, 1])),
    "F": Rules(("a", "b", "c", "d", "(E)"), Weights([4, 2, 1, 1, 4])),
}


class Grammar(Source):
    """Lines of arithmetic expressions, independent of each other, from a probabilistic context-free grammar.

    The grammar is unambiguous, so the entropy of a line is the expected sum of the entropies of the choices that make
    it. Lines end by a character that occurs nowhere else in them, so the entropy rate is the expected entropy of a line
    divided by its expected length, both from linear equations (Grenander 1967, "Syntax-Controlled Probabilities").
    """

    title = "arithmetic expressions from a probabilistic context-free grammar"

    def text(self, seed: int, count: int) -> str:
        bits, stack = random_bits(seed), [START]
        found: list[str] = []
        while len(found) < count:
            symbol = stack.pop()
            if symbol in RULES:
                rules = RULES[symbol]
                stack.extend(reversed(rules.sides[rules.weights.draw(next(bits))]))
            else:
                found.append(symbol)
                stack = stack or [START]
        return "".join(found)

    def entropy_rate(self) -> EntropyRate:
        names = list(RULES)
        expected = np.zeros((len(names), len(names)))  # number of each symbol in the right side of each symbol
        own_length, own_entropy = np.zeros(len(names)), np.zeros(len(names))
        for row, rules in enumerate(RULES.values()):
            own_entropy[row] = rules.weights.entropy
            for side, probability in zip(rules.sides, rules.weights.probabilities, strict=True):
                expected[row] += [probability * side.count(name) for name in names]
                own_length[row] += probability * sum(character not in RULES for character in side)
        length, entropy = np.linalg.solve(np.eye(len(names)) - expected, np.stack([own_length, own_entropy], axis=1))[
            names.index(START)
        ]
        return EntropyRate(float(entropy / length), 0.0)
