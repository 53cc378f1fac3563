"""Probes of state tracking: word problems of groups, of which parity and modular addition are two.

After each token the product of all tokens so far is asked, as in "The Illusion of State in State-Space Models" (Merrill
et al. 2024, arXiv 2404.08819). Legend: B rows, T time, G elements of the group.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from lmzoo.data.probes.task import Task, integers


class WordProblem(Task):
    """Tokens are elements of a group, uniformly drawn; the answer at each position is the product of those up to it."""

    def chance(self, length: int) -> float:
        return 1 / self.vocab_size

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        idx_BT = integers(generator, 0, self.vocab_size, rows, length)
        return idx_BT, self.products(idx_BT)

    @abstractmethod
    def products(self, idx_BT: Tensor) -> Tensor:
        """Returns the product of the elements up to each position: (B, T)."""


@dataclass(frozen=True)
class CyclicGroup(WordProblem):
    """Addition modulo `order`; with order 2, the parity of the ones so far."""

    order: int

    @property
    def vocab_size(self) -> int:
        return self.order

    def products(self, idx_BT: Tensor) -> Tensor:
        return idx_BT.cumsum(dim=1) % self.order


@dataclass(frozen=True)
class SymmetricGroup(WordProblem):
    """Composition of permutations of `degree` objects; the earlier token is applied first.

    The id of a permutation is its place in the lexicographic order, so that 0 is the identity.
    """

    degree: int

    @property
    def vocab_size(self) -> int:
        return len(_table(self.degree))

    def products(self, idx_BT: Tensor) -> Tensor:
        table_GG, state_B = _table(self.degree), torch.zeros(len(idx_BT), dtype=torch.long)
        found: list[Tensor] = []
        for now_B in idx_BT.unbind(dim=1):
            state_B = table_GG[state_B, now_B]
            found.append(state_B)
        return torch.stack(found, dim=1)


@cache
def _table(degree: int) -> Tensor:
    """Returns the multiplication table (G, G): [a, b] is the permutation that applies a and then b."""
    elements = list(permutations(range(degree)))
    number = {element: n for n, element in enumerate(elements)}
    return torch.tensor([[number[tuple(b[i] for i in a)] for b in elements] for a in elements])
