"""Tests of in-context n-grams against counts made by dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch

from lmzoo.data.probes.ngrams import InContextNGrams
from lmzoo.losses import IGNORE_INDEX


@pytest.mark.parametrize(("symbols", "order"), [(3, 1), (3, 2), (8, 1)])
def test_in_context_ngrams_ask_the_next_token_everywhere(symbols: int, order: int) -> None:
    idx, targets = InContextNGrams(symbols, order).draw(torch.Generator().manual_seed(0), 20, 30)
    assert torch.equal(targets[:, order - 1 : -1], idx[:, order:])
    assert (targets[:, : order - 1] == IGNORE_INDEX).all()
    assert set(idx.flatten().tolist()) == set(targets[:, -1].tolist()) | set(range(symbols)) == set(range(symbols))


@pytest.mark.parametrize(("symbols", "order"), [(3, 1), (3, 2)])
def test_in_context_ngrams_have_flat_dirichlet_transitions(symbols: int, order: int) -> None:
    """In long rows, the share of a symbol after a context has the mean and the variance of a flat Dirichlet draw."""
    idx, _ = InContextNGrams(symbols, order).draw(torch.Generator().manual_seed(1), 60, 2000)
    shares: list[float] = []
    same: list[float] = []
    for row in idx.tolist():
        after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        halves: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter), defaultdict(Counter)]
        for at in range(order, len(row)):
            context = tuple(row[at - order : at])
            after[context][row[at]] += 1
            halves[2 * at // len(row)][context][row[at]] += 1
        for context, counts in after.items():
            if counts.total() > 100:
                shares += [counts[symbol] / counts.total() for symbol in range(symbols)]
                first, second = (half[context] for half in halves)
                if min(first.total(), second.total()) > 100:  # the chain of a row does not change
                    same.append(abs(first[0] / first.total() - second[0] / second.total()))
    found = torch.tensor(shares)
    assert found.mean().item() == pytest.approx(1 / symbols, abs=0.001)
    assert found.var().item() == pytest.approx((symbols - 1) / symbols**2 / (symbols + 1), rel=0.2)
    assert max(same) < 0.25


@pytest.mark.parametrize(("symbols", "order"), [(3, 1), (3, 2)])
def test_in_context_ngrams_lines_are_the_accuracies_of_counting(symbols: int, order: int) -> None:
    task, length = InContextNGrams(symbols, order), 24
    idx, targets = task.test_rows(length)
    right = [0, 0]
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        for at in range(order - 1, length):
            context = tokens[at - order + 1 : at + 1]
            after = [tokens[t] for t in range(order, at + 1) if tokens[t - order : t] == context]
            for rule, seen in enumerate((tokens[: at + 1], after)):
                guess = max(range(symbols), key=lambda symbol: (seen.count(symbol), -symbol))
                right[rule] += guess == answers[at]
    asked = int((targets != IGNORE_INDEX).sum())
    assert (task.chance(length), task.best(length)) == pytest.approx((right[0] / asked, right[1] / asked))
    assert task.chance(length) < task.best(length) - 0.03
