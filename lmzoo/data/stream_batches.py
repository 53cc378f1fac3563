"""Training batches of a stream: windows are shuffled block by block, so that the position is a few numbers.

Shape legend: B batch, T time (context_length).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from lmzoo import configs
from lmzoo.configs import require_between, require_positive
from lmzoo.data.batches import random_numbers, require_shape, to_tensors
from lmzoo.data.token_reader import TokenPosition, TokenReader
from lmzoo.errors import CheckpointError, ConfigError

BLOCK_WINDOWS = 1024  # windows that are shuffled together


@dataclass(frozen=True, kw_only=True)
class BlockPosition(TokenPosition):
    """The start of block number `block`, of `windows` windows of `context_length` tokens."""

    block: int
    windows: int
    context_length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, "block", 0, float("inf"), below_high=True)
        require_positive(self, "windows", "context_length")


PositionT = TypeVar("PositionT", bound=BlockPosition)


def read_position(kind: type[PositionT], step: int, position: dict[str, Any] | None) -> PositionT | None:
    """Return the position in a stream that a checkpoint holds; None for none, at the start.

    Raises `CheckpointError` for one that is missing or cannot be.
    """
    if position is None:
        if step:
            raise CheckpointError("position must be given: the data are a stream")
        return None
    try:
        return configs.build(kind, position, where="the stream's position")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


class _Block(NamedTuple):
    """The `tokens` of the windows of a block and the token after them, and the start of the next block."""

    tokens: np.ndarray
    end: TokenPosition


class StreamBatches:
    """The batches of a stream, in an order that is a function of (seed, block).

    The tokens are cut into windows of `context_length` that do not overlap; a window may span several documents
    and the end of the data. Each block of `BLOCK_WINDOWS` windows is shuffled as `BatchStream` shuffles an epoch. While
    the trainer uses a block, a thread reads the next one; only these two blocks are in memory.
    """

    def __init__(
        self, reader: TokenReader, batch_size: int, context_length: int, seed: int, block_windows: int = BLOCK_WINDOWS
    ) -> None:
        """`seed`: 0 to 2**64 - 1. Raises `DataError` that names field, value and rule."""
        require_shape(batch_size, context_length, seed)
        self._reader = reader
        self._batch_size = batch_size
        self._context_length = context_length
        self._seed = seed
        self._windows = block_windows
        self._reach = np.arange(context_length + 1)
        self._begins = {0: reader.position}
        self._next = 0  # the block that the thread reads now or next; the block before it is in memory
        self._tokens = np.empty(0, dtype=np.int64)
        self._order = np.empty(0, dtype=np.int64)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lmzoo-data")
        self._ahead: Future[_Block] | None = None
        self._closed = False

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step, which must not be before the block that was used last.

        Raises `DataError` for a text that cannot be read or has no tokens.
        """
        windows: list[np.ndarray] = []
        left = self._batch_size
        while left:
            block, at = divmod((step + 1) * self._batch_size - left, self._windows)
            self._load(block)
            start_B = self._order[at : at + left] * self._context_length
            windows.append(self._tokens[start_B[:, None] + self._reach])
            left -= len(start_B)
        return to_tensors(np.concatenate(windows))

    def first_windows(self, count: int) -> np.ndarray:
        """Returns the first `count` windows in order: (count, T + 1), inputs and last target."""
        batches = [self.batch(step) for step in range(-(-count // self._batch_size))]
        windows = [torch.cat([idx_BT, targets_BT[:, -1:]], dim=1).numpy() for idx_BT, targets_BT in batches]
        return np.concatenate(windows)[:count]

    def position(self, step: int) -> dict[str, Any]:
        """Returns the start of the block that has the first window of `step`, the next step."""
        block = step * self._batch_size // self._windows
        begin = configs.to_dict(self._begins[block])
        size = {"block": block, "windows": self._windows, "context_length": self._context_length}
        return begin | size

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Continue with the batch of `step`; called before the first batch.

        Raises `CheckpointError` for a position of another step, or one that is not found in the data.
        """
        begin = read_position(BlockPosition, step, position)
        if begin is None:
            return
        ours = (step * self._batch_size // self._windows, self._windows, self._context_length)
        if (begin.block, begin.windows, begin.context_length) != ours:
            raise CheckpointError(
                f"the stream's position is of block={begin.block}, windows={begin.windows}, "
                f"context_length={begin.context_length}: step {step} needs {ours}"
            )
        assert self._ahead is None, "a stream that runs cannot be taken back"
        self._reader.restore(begin)
        self._begins = {begin.block: self._reader.position}
        self._next = begin.block

    def close(self) -> None:
        """Stop the thread and wait until it has read its current document."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)
        self._reader.close()

    def _load(self, block: int) -> None:
        """Load `block`: the current block, or a later one."""
        first = self._next - 1 if len(self._order) else self._next  # nothing is held before the first batch
        assert block >= first, f"block {block} is past: the stream is at block {first}"
        while self._next <= block:
            read = self._read() if self._ahead is None else self._ahead.result()
            self._tokens = read.tokens
            self._order = np.argsort(random_numbers(self._seed, self._next)(self._windows), kind="stable")
            self._next += 1
            self._begins[self._next] = read.end
            self._begins.pop(self._next - 2, None)
            self._ahead = self._thread.submit(self._read)

    def _read(self) -> _Block:
        """Read the next block, in small chunks so that reading can be stopped."""
        pieces: list[np.ndarray] = []
        while len(pieces) < self._windows and not self._closed:
            pieces.append(self._reader.read(self._context_length))
        # The last target of a block is the first token of the next one.
        pieces.append(self._reader.peek())
        return _Block(np.concatenate(pieces), self._reader.position)
