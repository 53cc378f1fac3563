"""Batches of token sequences: shuffled windows for training, all windows in text order for evaluation.

Shape legend: B batch, T time (context_length).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from lmzoo.errors import ConfigError, DataError
from lmzoo.losses import IGNORE_INDEX


class Batches(Protocol):
    """A source of training batches. A trainer asks for consecutive steps, starting from any step."""

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step (0, 1, ...): int64, targets shifted by one. Deterministic."""
        ...

    def first_windows(self, count: int) -> np.ndarray:
        """Returns the first `count` windows, or all of one epoch: (count, T + 1), inputs and last target.

        Of isolated documents, the rows of as many batches, padded at the end with `IGNORE_INDEX`.
        """
        ...

    def position(self, step: int) -> dict[str, Any] | None:
        """JSON that a checkpoint stores so that training can resume with the batch of `step`, the next one, or None."""
        ...

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Continue with `step`, from the value that `position` returned for it; called before the first batch.

        Raises CheckpointError if that is impossible.
        """
        ...

    def close(self) -> None:
        """Close open files and processes."""
        ...


class BatchStream:
    """Training batches as a pure function of (seed, step): nothing has to be saved, and a resumed run is bitwise equal.

    Each epoch cuts the tokens into windows of `context_length` that do not overlap, from an offset drawn for that
    epoch, and shuffles them. A batch may span the end of an epoch. The random numbers come
    from Philox (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3") with the key (seed, epoch), used as
    raw integers, so they are the same on every machine and in every version of numpy.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, context_length: int, seed: int) -> None:
        """`tokens`: one-dimensional array of ids, more than `context_length` of them. `seed`: 0 to 2**64 - 1.

        Raises DataError that names field, value and rule.
        """
        require_shape(batch_size, context_length, seed)
        _check(tokens)
        if tokens.size <= context_length:
            raise DataError(f"{tokens.size} tokens: context_length={context_length} needs {context_length + 1}")
        # A plain array over the same memory, because indexing an np.memmap is slower.
        self._tokens = np.asarray(tokens)
        self._batch_size = batch_size
        self._context_length = context_length
        self._seed = seed
        # Every epoch has the same number of windows, and all of them fit for any offset up to `_max_offset`.
        self.windows_per_epoch = max(1, (tokens.size - context_length) // context_length)
        # The largest offset makes the last window end at the last token, so that it is seen as often as the others.
        self._max_offset = tokens.size - 1 - self.windows_per_epoch * context_length
        self._reach = np.arange(context_length + 1)
        self._epoch = -1
        self._starts = np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (idx_BT, targets_BT) of a step (0, 1, ...): int64, targets shifted by one."""
        first, left = step * self._batch_size, self._batch_size
        starts: list[np.ndarray] = []
        while left:
            epoch, at = divmod(first + self._batch_size - left, self.windows_per_epoch)
            starts.append(self._epoch_starts(epoch)[at : at + left])
            left -= len(starts[-1])
        start_B = starts[0] if len(starts) == 1 else np.concatenate(starts)
        return to_tensors(self._tokens[start_B[:, None] + self._reach])

    def first_windows(self, count: int) -> np.ndarray:
        """Returns the first `count` windows, or all of one epoch, in order: (count, T + 1), inputs and last target."""
        return self._tokens[self._epoch_starts(0)[:count, None] + self._reach]

    def position(self, step: int) -> None:
        """Returns None: the step alone determines the batch."""

    def restore(self, step: int, position: dict[str, Any] | None) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def _epoch_starts(self, epoch: int) -> np.ndarray:
        """Start positions of the windows of an epoch, shuffled; the last epoch used is cached."""
        if epoch != self._epoch:
            raw = random_numbers(self._seed, epoch)
            offset = raw() % (self._max_offset + 1)
            order = np.argsort(raw(self.windows_per_epoch), kind="stable")
            self._starts = offset + order * self._context_length
            self._epoch = epoch
        return self._starts


class Windows(NamedTuple):
    """Some windows of a text that is evaluated: int64, and bool.

    Positions beyond the end of the text have the id 0 and the target `IGNORE_INDEX`, and are not counted.
    """

    idx_BT: torch.Tensor
    targets_BT: torch.Tensor
    counted_BT: torch.Tensor  # True where a target counts: once in all windows


def eval_windows(
    tokens: np.ndarray, batch_size: int, context_length: int, stride: int | None = None
) -> Iterator[Windows]:
    """Yields windows of `context_length` in text order: every token except the first is counted as a target once.

    A window starts `stride` tokens after the one before it (default: `context_length`, so that windows do not overlap).
    The first counts all of its targets, the others the last `stride`, which have at least `context_length - stride`
    tokens of context. The last window may be short, and the last batch may have fewer rows. Raises DataError for fewer
    than two tokens, ConfigError for a stride that is too large.
    """
    require_shape(batch_size, context_length)
    stride = require_stride(stride, context_length)
    _check(tokens)
    if tokens.size < 2:
        raise DataError(f"{tokens.size} tokens: evaluation needs at least 2")
    return _eval_windows(np.asarray(tokens), batch_size, context_length, stride)


def _eval_windows(tokens: np.ndarray, batch_size: int, context_length: int, stride: int) -> Iterator[Windows]:
    n_targets = tokens.size - 1
    n_windows = 1 + -(-max(0, n_targets - context_length) // stride)
    for first in range(0, n_windows, batch_size):
        start_B1 = stride * np.arange(first, min(first + batch_size, n_windows))[:, None]
        place_BT = start_B1 + np.arange(context_length)
        exists_BT = place_BT < n_targets
        known_BT = place_BT.clip(max=n_targets - 1)
        idx_BT = np.where(exists_BT, tokens[known_BT].astype(np.int64), 0)
        targets_BT = np.where(exists_BT, tokens[known_BT + 1].astype(np.int64), IGNORE_INDEX)
        done_B1 = np.where(start_B1 > 0, start_B1 + context_length - stride, 0)  # targets of the windows before
        counted_BT = exists_BT & (place_BT >= done_B1)
        yield Windows(torch.from_numpy(idx_BT), torch.from_numpy(targets_BT), torch.from_numpy(counted_BT))


def require_stride(stride: int | None, context_length: int) -> int:
    """Returns the stride; None stands for `context_length`. Raises ConfigError unless it is in [1, context_length]."""
    if stride is None:
        return context_length
    if type(stride) is not int or not 1 <= stride <= context_length:
        raise ConfigError(f"stride={stride!r} must be an integer in [1, context_length={context_length}]")
    return stride


def random_numbers(seed: int, number: int) -> Callable[..., Any]:
    """Returns a function that draws from Philox with the key (seed, number): a uint64, or an array if given a count."""
    return np.random.Philox(key=np.array([seed, number], dtype=np.uint64)).random_raw


def to_tensors(window_BT: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Split windows of T + 1 tokens into (idx_BT, targets_BT), both int64."""
    idx_BT = torch.from_numpy(window_BT[:, :-1].astype(np.int64))
    targets_BT = torch.from_numpy(window_BT[:, 1:].astype(np.int64))
    return idx_BT, targets_BT


def require_shape(batch_size: int, context_length: int, seed: int = 0) -> None:
    """Raises DataError unless both sizes are at least 1 and the seed has 64 bits."""
    for name, value in (("batch_size", batch_size), ("context_length", context_length)):
        if value < 1:
            raise DataError(f"{name}={value} must be at least 1")
    if not 0 <= seed < 1 << 64:
        raise DataError(f"seed={seed} must be from 0 to 2**64 - 1")


def _check(tokens: np.ndarray) -> None:
    if tokens.ndim != 1:
        raise DataError(f"tokens must have one dimension, not {tokens.ndim}")
