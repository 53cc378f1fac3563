"""Training batches of isolated documents of a stream: rows are dealt to batches block by block.

Shape legend: B batch, T time (at most context_length).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from lmzoo import configs
from lmzoo.configs import require_between
from lmzoo.data.batches import random_numbers, require_shape
from lmzoo.data.documents import row_tensors
from lmzoo.data.isolated_batches import EMPTY_ROW, Dealt, deal
from lmzoo.data.stream_batches import BLOCK_WINDOWS, BlockPosition, read_position
from lmzoo.data.token_reader import TokenPosition, TokenReader
from lmzoo.errors import CheckpointError
from lmzoo.losses import IGNORE_INDEX

BLOCK_BATCHES = 16  # the last batch of a block is not full, so a block should have many


@dataclass(frozen=True, kw_only=True)
class IsolatedPosition(BlockPosition):
    """The start of a block of rows, whose first batch is the one of step `first`."""

    first: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, "first", 0, float("inf"), below_high=True)


class _Block(NamedTuple):
    """The rows of a block, of different lengths, its start, and the start of the next block."""

    rows: list[np.ndarray]
    begin: TokenPosition
    end: TokenPosition


class IsolatedStreamBatches:
    """The batches of a stream of isolated documents, in an order that is a function of (seed, block).

    A block has `BLOCK_WINDOWS` rows, or `BLOCK_BATCHES` times the batch size if that is more. They are dealt to batches
    as `IsolatedBatches` deals an epoch. While the trainer uses a block, a thread reads the next one; only these two
    blocks are in memory.
    """

    def __init__(
        self,
        reader: TokenReader,
        batch_size: int,
        context_length: int,
        seed: int,
        block_windows: int | None = None,
    ) -> None:
        """`seed`: 0 to 2**64 - 1. Raises `DataError` that names field, value and rule."""
        require_shape(batch_size, context_length, seed)
        self._reader = reader
        self._batch_size, self._context_length, self._seed = batch_size, context_length, seed
        self._windows = block_windows or max(BLOCK_WINDOWS, BLOCK_BATCHES * batch_size)
        self._number, self._first = -1, 0  # of the block in memory, and the step of its first batch
        self._block = _Block([], reader.position, reader.position)
        self._dealt: list[Dealt] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lmzoo-data")
        self._ahead: Future[_Block] | None = None
        self._closed = False

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step, which must not be before the block that was used last.

        Raises `DataError` for a text that cannot be read or has no tokens.
        """
        assert step >= self._first, f"step {step} is past: the stream is at step {self._first}"
        while step >= self._first + len(self._dealt):
            self._load_next()
        width, rows_B = self._dealt[step - self._first]
        return row_tensors(self._padded(rows_B.tolist(), width))

    def first_windows(self, count: int) -> np.ndarray:
        """Returns the rows of the first `count` / batch_size batches: (rows, T + 1), padded."""
        found: list[np.ndarray] = []
        for step in range(-(-count // self._batch_size)):
            self.batch(step)
            rows_B = self._dealt[step - self._first].rows_B
            found.append(self._padded(rows_B[rows_B >= 0].tolist(), self._context_length))
        return np.concatenate(found)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the start of the block that has the batch of `step`, the next step."""
        size = {"windows": self._windows, "context_length": self._context_length}
        if step < self._first + len(self._dealt):
            return configs.to_dict(self._block.begin) | size | {"block": self._number, "first": self._first}
        first = step if self._dealt else self._first  # nothing is held before the first batch
        return configs.to_dict(self._block.end) | size | {"block": self._number + 1, "first": first}

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Continue with the batch of `step`; called before the first batch.

        Raises `CheckpointError` for a position of another step, or one that is not found in the data.
        """
        begin = read_position(IsolatedPosition, step, position)
        if begin is None:
            return
        ours = (self._windows, self._context_length)
        if (begin.windows, begin.context_length) != ours or not begin.first <= step:
            raise CheckpointError(
                f"the stream's position is of first={begin.first}, windows={begin.windows}, "
                f"context_length={begin.context_length}: step {step} needs {ours}"
            )
        assert self._ahead is None, "a stream that runs cannot be taken back"
        self._reader.restore(begin)
        self._number, self._first = begin.block - 1, begin.first
        self._block = _Block([], self._reader.position, self._reader.position)

    def close(self) -> None:
        """Stop the thread and wait until it has read its current document."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)
        self._reader.close()

    def _load_next(self) -> None:
        self._block = self._read() if self._ahead is None else self._ahead.result()
        self._first += len(self._dealt)
        self._number += 1
        targets_N = np.array([row.size - 1 for row in self._block.rows])
        raw = random_numbers(self._seed, self._number)
        self._dealt = deal(targets_N, self._batch_size, self._context_length, raw)
        self._ahead = self._thread.submit(self._read)

    def _read(self) -> _Block:
        """Read the next block, row by row so that reading can be stopped."""
        begin, rows = self._reader.position, list[np.ndarray]()
        while len(rows) < self._windows and not self._closed:
            rows.append(self._reader.read_row(self._context_length))
        return _Block(rows, begin, self._reader.position)

    def _padded(self, numbers: list[int], width: int) -> np.ndarray:
        """Returns rows of the block (B, width + 1), padded with `IGNORE_INDEX`."""
        window_BT = np.full((len(numbers), width + 1), IGNORE_INDEX, dtype=np.int64)
        for window_T, number in zip(window_BT, numbers, strict=True):
            if number != EMPTY_ROW:
                row = self._block.rows[number]
                window_T[: row.size] = row
        return window_BT
