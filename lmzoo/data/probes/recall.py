"""Probes of recall: multi-query associative recall, induction heads, and a needle in a haystack.

Legend: B rows, T time, P pairs of a key and a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.data.probes.task import Task, distinct, integers, no_questions

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class AssociativeRecall(Task):
    """Multi-query associative recall: pairs of a key and a value, then each key again, where its value is asked.

    As in Zoology (Arora et al. 2023, arXiv 2312.04927; `multiquery_ar` of its code): of the `n_ids` ids, keys are those
    from 1 to below the half, values those from the half on, each drawn without repetition. The gaps between the pairs
    and the questions follow a power law with exponent `power` - 1. All other positions hold random ids. The length must
    be even, and at least 4 times `pairs`.
    """

    n_ids: int
    pairs: int
    power: float = 0.01

    @property
    def vocab_size(self) -> int:
        return self.n_ids

    def chance(self, length: int) -> float:
        return 1 / self.pairs  # any value of the sequence

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        half, start = self.n_ids // 2, 2 * self.pairs
        key_BP = distinct(generator, rows, 1, half, self.pairs)
        value_BP = distinct(generator, rows, half, self.n_ids, self.pairs)
        idx_BT, targets_BT = integers(generator, 0, self.n_ids, rows, length), no_questions(rows, length)
        idx_BT[:, 0:start:2], idx_BT[:, 1:start:2] = key_BP, value_BP
        # Weighted draws without replacement: the first arrivals of exponential clocks with the weights as rates.
        weights = torch.arange(1, (length - start) // 2 + 1, dtype=torch.double) ** (self.power - 1)
        uniform = torch.rand(rows, len(weights), dtype=torch.double, generator=generator)
        arrival = -torch.log1p(-uniform) / weights
        at_BP = start + 2 * arrival.topk(self.pairs, dim=1, largest=False).indices
        idx_BT.scatter_(1, at_BP, key_BP)
        targets_BT.scatter_(1, at_BP, value_BP)
        return idx_BT, targets_BT


@dataclass(frozen=True)
class InductionHeads(Task):
    """A special token occurs once in a random sequence and again at its end, where the token after it is asked.

    As in H3 (Dao et al. 2022, arXiv 2212.14052) and Mamba (Gu and Dao 2023, arXiv 2312.00752, section 4.1.2). The
    special token is the last id, and not one of the `symbols`.
    """

    symbols: int

    @property
    def vocab_size(self) -> int:
        return self.symbols + 1

    def chance(self, length: int) -> float:
        return 1 / self.symbols

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        idx_BT, targets_BT = integers(generator, 0, self.symbols, rows, length), no_questions(rows, length)
        at_B1 = integers(generator, 0, length - 2, rows, 1)
        idx_BT.scatter_(1, at_B1, self.symbols)
        idx_BT[:, -1] = self.symbols
        targets_BT[:, -1:] = idx_BT.gather(1, at_B1 + 1)
        return idx_BT, targets_BT


@dataclass(frozen=True)
class Needle(Task):
    """Pairs of a key and a value lie in filler tokens; the last token is one of the keys, and its value is asked.

    A small form of the needle in a haystack with distracting needles of RULER (Hsieh et al. 2024, arXiv 2404.06654).
    The ids are `fillers`, then `keys`, then `values`. The needle that is asked lies at `depth`, the share of the
    sequence before it, or anywhere (None).
    """

    needles: int
    fillers: int = 16
    keys: int = 32
    values: int = 32
    depth: float | None = None

    @property
    def vocab_size(self) -> int:
        return self.fillers + self.keys + self.values

    def chance(self, length: int) -> float:
        return 1 / (self.values if self.needles == 1 else self.needles)

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        slots, first_value = (length - 1) // 2, self.fillers + self.keys
        key_BP = distinct(generator, rows, self.fillers, first_value, self.needles)
        value_BP = distinct(generator, rows, first_value, self.vocab_size, self.needles)
        slot_BP = distinct(generator, rows, 0, slots, self.needles)
        if self.depth is not None:  # rotates all slots, so that they stay different
            slot_BP = (slot_BP - slot_BP[:, :1] + round(self.depth * (slots - 1))) % slots
        idx_BT, targets_BT = integers(generator, 0, self.fillers, rows, length), no_questions(rows, length)
        idx_BT.scatter_(1, 2 * slot_BP, key_BP)
        idx_BT.scatter_(1, 2 * slot_BP + 1, value_BP)
        idx_BT[:, -1], targets_BT[:, -1] = key_BP[:, 0], value_BP[:, 0]
        return idx_BT, targets_BT

    def parts(self) -> Mapping[str, Task]:
        return {f"depth {depth:.0%}": dataclasses.replace(self, depth=depth) for depth in DEPTHS}
