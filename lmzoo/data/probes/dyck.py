"""The probe of nested brackets. Legend: B rows, T time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.data.probes.task import Task, integers, no_questions


@dataclass(frozen=True)
class Dyck(Task):
    """Brackets of `kinds` kinds, nested at most `depth` deep; where the next token closes one, its kind is asked.

    Dyck-(k, m) of Hewitt et al. 2020 (arXiv 2010.07515): a token opens or closes a bracket with equal probability,
    except where only one is possible. Opening brackets have the ids in [0, kinds), closing ones those in
    [kinds, 2 kinds). Two changes: a sequence ends anywhere, without an end token, and a bracket that closes directly
    after it was opened is not asked, since it needs no memory (the paper gives each distance the same weight instead).
    """

    kinds: int
    depth: int

    @property
    def vocab_size(self) -> int:
        return 2 * self.kinds

    def chance(self, length: int) -> float:
        return 1 / self.kinds

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        opens_BT = integers(generator, 0, 2, rows, length + 1).bool()
        kind_BT = integers(generator, 0, self.kinds, rows, length + 1)
        token_BT = torch.empty(rows, length + 1, dtype=torch.long)
        # The kind and the position of the bracket that is open at each depth; a place below a row's depth is free.
        stack, where = torch.zeros(2, rows, self.depth, dtype=torch.long)
        depth_B, every = torch.zeros(rows, dtype=torch.long), torch.arange(rows)
        targets_BT = no_questions(rows, length)
        for t in range(length + 1):
            opens_B = (opens_BT[:, t] | (depth_B == 0)) & (depth_B < self.depth)
            top_B = (depth_B - 1).clamp_min(0)
            closing_B, opened_B = stack[every, top_B] + self.kinds, where[every, top_B]
            token_BT[:, t] = torch.where(opens_B, kind_BT[:, t], closing_B)
            if t:
                asked_B = ~opens_B & (opened_B < t - 1)
                targets_BT[asked_B, t - 1] = closing_B[asked_B]
            at_B = depth_B[opens_B]
            stack[opens_B, at_B], where[opens_B, at_B] = kind_BT[opens_B, t], t
            depth_B += torch.where(opens_B, 1, -1)
        return token_BT[:, :length], targets_BT
