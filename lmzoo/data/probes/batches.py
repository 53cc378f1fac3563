"""Training batches of a task, drawn when they are needed. Legend: B batch, T time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lmzoo.data.batches import random_numbers, require_shape
from lmzoo.data.probes.task import Task
from lmzoo.errors import DataError


class TaskBatches:
    """Batches of a task as a pure function of (seed, step): a resumed run is bitwise equal, and no batch comes twice.

    Implements `lmzoo.data.batches.Batches`.
    """

    def __init__(self, task: Task, batch_size: int, length: int, seed: int) -> None:
        """Raises DataError that names field, value and rule."""
        require_shape(batch_size, length, seed)
        self._task, self._batch_size, self._length, self._seed = task, batch_size, length, seed

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step (0, 1, ...): int64, IGNORE_INDEX where nothing is asked."""
        generator = torch.Generator().manual_seed(int(random_numbers(self._seed, step)()) >> 1)
        return self._task.draw(generator, self._batch_size, self._length)

    def first_windows(self, count: int) -> np.ndarray:
        """Raises DataError: a model that is fitted instead of trained reads plain text."""
        raise DataError("the sequences of a probe are no text: a model that is fitted cannot be trained on them")

    def position(self, step: int) -> None:
        """Returns None: the step alone determines the batch."""

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
