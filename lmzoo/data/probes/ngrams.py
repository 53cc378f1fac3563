"""The probe of in-context n-grams. Legend: B rows, T time, C contexts, K symbols."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lmzoo.data.probes.task import Task, integers, no_questions


@dataclass(frozen=True)
class InContextNGrams(Task):
    """Each sequence comes from a Markov chain of its own; the next token is asked everywhere.

    As in "The Evolution of Statistical Induction Heads" (Edelman et al. 2024, arXiv 2402.11004): the next token depends
    on the `order` tokens before it, by distributions from a flat Dirichlet prior. One change: the first tokens are
    uniform instead of stationary. The next token cannot be known: the best rule guesses the one that has followed the
    same context most often. The accuracy without the skill is that of guessing the most frequent token so far. Both are
    measured on the sequences of `test_rows`.
    """

    symbols: int
    order: int

    @property
    def vocab_size(self) -> int:
        return self.symbols

    def chance(self, length: int) -> float:
        return _accuracies(self, length)[0]

    def best(self, length: int) -> float:
        return _accuracies(self, length)[1]

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        shape = (rows, self.symbols**self.order, self.symbols)
        weight_BCK = -torch.log1p(-torch.rand(shape, generator=generator))  # normalized, a flat Dirichlet draw
        upto_BCK = (weight_BCK / weight_BCK.sum(dim=2, keepdim=True)).cumsum(dim=2)
        drawn_BT, every = torch.rand(rows, length + 1, generator=generator), torch.arange(rows)
        token_BT = integers(generator, 0, self.symbols, rows, length + 1)
        for t in range(self.order, length + 1):
            upto_BK = upto_BCK[every, self._context(token_BT, t)]
            token_BT[:, t] = (drawn_BT[:, t, None] >= upto_BK[:, :-1]).sum(dim=1)
        targets_BT = no_questions(rows, length)
        targets_BT[:, self.order - 1 :] = token_BT[:, self.order :]
        return token_BT[:, :length].clone(), targets_BT

    def _context(self, token_BT: Tensor, t: int) -> Tensor:
        """Returns the number of the context before position `t`: (B,)."""
        place = self.symbols ** torch.arange(self.order - 1, -1, -1)
        return (token_BT[:, t - self.order : t] * place).sum(dim=1)


@cache
def _accuracies(task: InContextNGrams, length: int) -> tuple[float, float]:
    """Returns the accuracies of guessing the most frequent token so far, and the most frequent one in this context."""
    idx_BT, targets_BT = task.test_rows(length)
    rows, every = len(idx_BT), torch.arange(len(idx_BT))
    alone_BK = torch.zeros(rows, task.symbols)
    after_BCK = torch.zeros(rows, task.symbols**task.order, task.symbols)
    right = torch.zeros(2)
    for t in range(length):
        token_B, target_B = idx_BT[:, t], targets_BT[:, t]
        alone_BK[every, token_B] += 1
        if t >= task.order:
            after_BCK[every, task._context(idx_BT, t), token_B] += 1
        if t >= task.order - 1:
            context_B = task._context(idx_BT, t + 1)
            guesses = alone_BK.argmax(dim=1), after_BCK[every, context_B].argmax(dim=1)
            right += torch.stack([(guess_B == target_B).sum() for guess_B in guesses])
    asked = rows * (length - task.order + 1)
    return float(right[0]) / asked, float(right[1]) / asked
