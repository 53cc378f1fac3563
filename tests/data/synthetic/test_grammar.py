"""Tests of the grammar against a parser that is written for it."""

from __future__ import annotations

import math

import pytest

from lmzoo.data.synthetic import grammar
from lmzoo.data.synthetic.grammar import Grammar
from tests.data.synthetic.likelihood import require_typical

# Nats of each choice, as fractions of the weights.
PLUS, NO_PLUS, TIMES, NO_TIMES = (-math.log(p) for p in (3 / 8, 5 / 8, 1 / 4, 3 / 4))
FACTORS = {"a": 4 / 12, "b": 2 / 12, "c": 1 / 12, "d": 1 / 12, "(": 4 / 12}


def parse_sum(text: str, at: int) -> tuple[float, int]:
    """Returns the nats of the choices that make the longest sum at `at`, and where it ends."""
    nats, at = parse_product(text, at)
    while text[at] == "+":
        more, at = parse_product(text, at + 1)
        nats += PLUS + more
    return nats + NO_PLUS, at


def parse_product(text: str, at: int) -> tuple[float, int]:
    nats, at = parse_factor(text, at)
    while text[at] == "*":
        more, at = parse_factor(text, at + 1)
        nats += TIMES + more
    return nats + NO_TIMES, at


def parse_factor(text: str, at: int) -> tuple[float, int]:
    nats = -math.log(FACTORS[text[at]])
    if text[at] != "(":
        return nats, at + 1
    inside, at = parse_sum(text, at + 1)
    assert text[at] == ")"
    return nats + inside, at + 1


def test_grammar_entropy_rate_agrees_with_the_parsed_text() -> None:
    text = Grammar().text(3, 100_000)
    nats: list[float] = []
    for line in text.split("\n")[:-1]:
        of_line, end = parse_sum(line + "\n", 0)
        assert end == len(line)
        nats += [of_line / (len(line) + 1)] * (len(line) + 1)
    require_typical(nats, Grammar().entropy_rate())


def test_grammar_entropy_rate_agrees_with_iterated_expectations() -> None:
    """The expected length and entropy of each symbol, by repeated substitution up to a great depth."""
    length = dict.fromkeys("ETF", 0.0)
    entropy = dict.fromkeys("ETF", 0.0)
    h_plus, h_times = (-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (3 / 8, 1 / 4))
    h_factor = -sum(p * math.log(p) for p in FACTORS.values())
    for _ in range(5000):
        length = {
            "E": length["T"] + 3 / 8 * (1 + length["E"]),
            "T": length["F"] + 1 / 4 * (1 + length["T"]),
            "F": 8 / 12 + 4 / 12 * (2 + length["E"]),
        }
        entropy = {
            "E": h_plus + entropy["T"] + 3 / 8 * entropy["E"],
            "T": h_times + entropy["F"] + 1 / 4 * entropy["T"],
            "F": h_factor + 4 / 12 * entropy["E"],
        }
    expected = entropy["E"] / (length["E"] + 1)
    assert Grammar().entropy_rate().nats == pytest.approx(expected, abs=1e-12)


def test_grammar_rules_have_one_weight_for_each_side() -> None:
    for rules in grammar.RULES.values():
        assert len(rules.sides) == len(rules.weights.probabilities)
