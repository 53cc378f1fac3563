"""The parts of every probe: a task with questions, its difficulty levels, and the accuracies that it is judged by.

A task draws sequences and asks at some of their positions; all other targets are IGNORE_INDEX, which the loss ignores.
Legend: B rows of a batch, T time (length), V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.losses import IGNORE_INDEX

SOLVED = 0.99  # share of the best possible accuracy from which on a task is solved
TEST_ROWS = 256  # sequences on which accuracy is measured
_TEST_SEED = 20231208


@dataclass(frozen=True)
class Task(ABC):
    """Draws the sequences of one probe; its fields decide the difficulty."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of ids; all inputs and answers are below it."""

    @abstractmethod
    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Draw sequences: (idx_BT, targets_BT), int64; a target is the answer, or IGNORE_INDEX without a question."""

    @abstractmethod
    def chance(self, length: int) -> float:
        """Returns the accuracy that can be had without the skill that is probed."""

    def best(self, length: int) -> float:
        """Returns the accuracy of the best possible rule."""
        return 1.0

    def solved(self, length: int) -> float:
        """Returns the accuracy from which on the task counts as solved at this length."""
        return SOLVED * self.best(length)

    def parts(self) -> Mapping[str, Task]:
        """Returns tasks with a fixed part of the difficulty, by name, on which a trained model is tested as well."""
        return {}

    def test_rows(self, length: int) -> tuple[Tensor, Tensor]:
        """Draw the sequences on which every model is tested: (idx_BT, targets_BT), always the same."""
        return self.draw(torch.Generator().manual_seed(_TEST_SEED), TEST_ROWS, length)


@dataclass(frozen=True)
class Level:
    """A difficulty: a task, the length of its training sequences, and the greater length that is tested as well."""

    task: Task
    trained: int
    tested: int


@dataclass(frozen=True)
class Probe:
    """A probe with its difficulty levels, easiest first. `skill` is a phrase, `paper` the source of the generator."""

    name: str
    skill: str
    paper: str
    levels: Mapping[str, Level]


def no_questions(rows: int, length: int) -> Tensor:
    """Returns targets (B, T) without any question."""
    return torch.full((rows, length), IGNORE_INDEX, dtype=torch.long)


def integers(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Draw integers in [low, high), uniformly."""
    return torch.randint(low, high, shape, generator=generator)


def distinct(generator: torch.Generator, rows: int, low: int, high: int, count: int) -> Tensor:
    """Draw `count` different integers in [low, high) for each row, in random order: (B, count)."""
    return low + torch.rand(rows, high - low, generator=generator).topk(count, dim=1).indices
