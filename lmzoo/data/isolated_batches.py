"""Training batches of isolated documents: rows of similar length stand together, so that little of a batch is padding.

Shape legend: N rows of an epoch or a block, B rows of a batch, T time (at most context_length).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from lmzoo.data.batches import random_numbers, require_shape
from lmzoo.data.documents import cut, padded, require_targets, row_tensors, widths
from lmzoo.data.store import TokenSplit
from lmzoo.losses import IGNORE_INDEX

EMPTY_ROW = -1


class Dealt(NamedTuple):
    """A batch: the width to which its rows are padded, and their numbers; `EMPTY_ROW` is a row without a target."""

    width: int
    rows_B: np.ndarray


def deal(targets_N: np.ndarray, batch_size: int, context_length: int, raw: Callable[..., Any]) -> list[Dealt]:
    """Deal rows with these numbers of targets to batches, each row once, in an order that is drawn from `raw`.

    A batch has as many inputs as `batch_size` rows of the context length: a multiple of `batch_size` rows of a width
    among `widths`. Rows that fill no batch of their width go to those of the next one; the last ones, fewer than
    `batch_size`, are a batch with empty rows. The number of batches depends on `targets_N` alone.
    """
    limits = widths(context_length)
    order_N = np.argsort(raw(len(targets_N)), kind="stable")
    class_N = np.searchsorted(limits, targets_N)
    batches: list[np.ndarray] = []
    left = np.empty(0, dtype=np.int64)
    for number, limit in enumerate(limits):
        left = np.concatenate([left, order_N[class_N[order_N] == number]])
        size = batch_size * (context_length // limit)
        full = len(left) // size * size
        batches += [*left[:full].reshape(-1, size)]
        left = left[full:]
    if left.size:
        batches.append(np.concatenate([left, np.full(batch_size - left.size, EMPTY_ROW)]))
    dealt = [Dealt(limits[class_N[rows_B[rows_B >= 0]].max()], rows_B) for rows_B in batches]
    return [dealt[number] for number in np.argsort(raw(len(dealt)), kind="stable")]


class IsolatedBatches:
    """Training batches of isolated documents as a pure function of (seed, step), as `BatchStream` of joined ones.

    Each epoch deals all rows to batches (`deal`). Random numbers come from Philox with the key (seed, epoch).
    """

    def __init__(self, split: TokenSplit, batch_size: int, context_length: int, seed: int) -> None:
        """`split` has `ends`. `seed`: 0 to 2**64 - 1. Raises DataError that names field, value and rule."""
        require_shape(batch_size, context_length, seed)
        assert split.ends is not None, "the documents are joined"
        require_targets(split)
        self._tokens = np.asarray(split.tokens)
        self._pieces = cut(split.ends, context_length)
        self._batch_size, self._context_length, self._seed = batch_size, context_length, seed
        self._epoch, self._dealt = -1, list[Dealt]()
        self.batches_per_epoch = len(self._epoch_batches(0))
        self.targets_per_batch = float(self._pieces.targets_N.sum() / self.batches_per_epoch)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step (0, 1, ...): int64, targets shifted by one, padded on the right."""
        epoch, at = divmod(step, self.batches_per_epoch)
        width, rows_B = self._epoch_batches(epoch)[at]
        return row_tensors(self._rows(rows_B, width))

    def first_windows(self, count: int) -> np.ndarray:
        """Returns the rows of the first `count` / batch_size batches, or of one epoch: (rows, T + 1), padded."""
        batches = self._epoch_batches(0)[: -(-count // self._batch_size)]
        rows_B = np.concatenate([dealt.rows_B for dealt in batches])
        return self._rows(rows_B[rows_B >= 0], self._context_length)

    def position(self, step: int) -> None:
        """Returns None: the step alone determines the batch."""

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def _rows(self, rows_B: np.ndarray, width: int) -> np.ndarray:
        window_BT = padded(self._tokens, self._pieces.start_N[rows_B], self._pieces.targets_N[rows_B], width)
        window_BT[rows_B == EMPTY_ROW] = IGNORE_INDEX
        return window_BT

    def _epoch_batches(self, epoch: int) -> list[Dealt]:
        """The batches of an epoch, in their order; those of the last epoch used are cached."""
        if epoch != self._epoch:
            raw = random_numbers(self._seed, epoch)
            self._dealt = deal(self._pieces.targets_N, self._batch_size, self._context_length, raw)
            self._epoch = epoch
        return self._dealt
