"""The probe of selective copying. Legend: B rows, T time, N tokens to copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.data.probes.task import Task, distinct, integers, no_questions


@dataclass(frozen=True)
class SelectiveCopying(Task):
    """`tokens` random tokens lie among blanks; as many markers follow, at which they are asked in their order.

    As in Mamba (Gu and Dao 2023, arXiv 2312.00752, section 4.1.1), by the generator of S4's code (`torch_copying_data`
    with variable spacing): id 0 is the blank, the last id is the marker, and the ids between them are the tokens.
    """

    tokens: int
    n_ids: int = 16

    @property
    def vocab_size(self) -> int:
        return self.n_ids

    def chance(self, length: int) -> float:
        return 1 / (self.n_ids - 2)

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        before = length - self.tokens
        token_BN = integers(generator, 1, self.n_ids - 1, rows, self.tokens)
        at_BN = distinct(generator, rows, 0, before, self.tokens).sort(dim=1).values
        idx_BT, targets_BT = torch.zeros(rows, length, dtype=torch.long), no_questions(rows, length)
        idx_BT.scatter_(1, at_BN, token_BN)
        idx_BT[:, before:], targets_BT[:, before:] = self.n_ids - 1, token_BN
        return idx_BT, targets_BT
