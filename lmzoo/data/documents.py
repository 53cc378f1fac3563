"""Isolated documents: rows that hold one document each, so that no prediction crosses a document's beginning.

A row holds a document, or a piece of one that is longer than the context: `context_length` targets each, and the last
piece the rest. A piece begins with the last target of the piece before it, but sees nothing else of it. So each token
is a target once, except the first one of each document, which nothing precedes. Rows are padded on the right, with
targets that the loss ignores. A model is causal, so its losses are those of the document alone.

Shape legend: N rows, B batch, T time (at most context_length).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lmzoo.data.batches import Windows, eval_windows, require_shape, require_stride, to_tensors
from lmzoo.data.store import TokenSplit, require_length
from lmzoo.errors import ConfigError, DataError
from lmzoo.losses import IGNORE_INDEX

WIDTHS = 8  # number of widths to which rows are padded: compiled code sees few shapes


@dataclass(frozen=True)
class Pieces:
    """Rows of a text, in its order: the places of their first tokens in the text, and their numbers of targets."""

    start_N: np.ndarray
    targets_N: np.ndarray

    def __len__(self) -> int:
        return len(self.start_N)

    def first(self, targets: int) -> Pieces:
        """Returns the first rows, which have `targets` targets in all; the last one is cut."""
        before_N = np.cumsum(self.targets_N) - self.targets_N
        kept_N = before_N < targets
        return Pieces(self.start_N[kept_N], np.minimum(self.targets_N, targets - before_N)[kept_N])


def cut(ends: np.ndarray, context_length: int) -> Pieces:
    """Cut documents into rows; `ends` are the places after their last tokens. A document of one token has no row."""
    require_shape(1, context_length)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    targets = np.maximum(ends - starts - 1, 0)
    rows = -(-targets // context_length)
    number_N = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)  # of a row in its document
    before_N = number_N * context_length
    left_N = np.repeat(targets, rows) - before_N
    return Pieces(np.repeat(starts, rows) + before_N, np.minimum(left_N, context_length))


def widths(context_length: int) -> list[int]:
    """Returns the widths to which rows are padded, in ascending order; the last one is `context_length`."""
    parts = min(WIDTHS, context_length)
    return [-(-context_length * part // parts) for part in range(1, parts + 1)]


def padded(tokens: np.ndarray, start_B: np.ndarray, targets_B: np.ndarray, width: int) -> np.ndarray:
    """Returns rows (B, width + 1) of the tokens from `start_B` on: inputs and last target, then `IGNORE_INDEX`."""
    reach = np.arange(width + 1)
    inside = reach <= targets_B[:, None]
    window_BT = tokens[np.where(inside, start_B[:, None] + reach, 0)].astype(np.int64)
    return np.where(inside, window_BT, IGNORE_INDEX)


def row_tensors(window_BT: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Split padded rows into (idx_BT, targets_BT), both int64; inputs are padded with the id 0."""
    idx_BT, targets_BT = to_tensors(window_BT)
    return idx_BT.clamp_(min=0), targets_BT


def split_batches(
    split: TokenSplit, batch_size: int, context_length: int, tokens: int | None = None, stride: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (idx_BT, targets_BT) of `split_windows`, with the target IGNORE_INDEX where none counts."""
    for idx_BT, targets_BT, counted_BT in split_windows(split, batch_size, context_length, tokens, stride):
        yield idx_BT, targets_BT.where(counted_BT, IGNORE_INDEX)


def split_windows(
    split: TokenSplit, batch_size: int, context_length: int, tokens: int | None = None, stride: int | None = None
) -> Iterator[Windows]:
    """Yields windows that count every target of `split` once, or its first `tokens` targets.

    The windows of `eval_windows`, or for a split of isolated documents their rows, the shortest first: `batch_size`
    rows of the context length, or more of a smaller width. The order of the targets does not depend on `batch_size`. A
    split without targets has no windows, or raises `DataError`. Raises `ConfigError` for a stride that is too large, or
    smaller than the context length for isolated documents.
    """
    if split.ends is None:
        ids = split.tokens if tokens is None else split.tokens[: tokens + 1]
        yield from eval_windows(ids, batch_size, context_length, stride)
        return
    if require_stride(stride, context_length) < context_length:
        raise ConfigError(f"stride={stride}: the rows of isolated documents do not overlap")
    pieces = cut(split.ends, context_length)
    pieces = pieces if tokens is None else pieces.first(tokens)
    order_N = np.argsort(pieces.targets_N, kind="stable")
    width_N = np.array(widths(context_length))[np.searchsorted(widths(context_length), pieces.targets_N[order_N])]
    for width in np.unique(width_N).tolist():
        of_width = order_N[width_N == width]
        rows = batch_size * (context_length // width)
        for first in range(0, len(of_width), rows):
            chosen_B = of_width[first : first + rows]
            window_BT = padded(split.tokens, pieces.start_N[chosen_B], pieces.targets_N[chosen_B], width)
            idx_BT, targets_BT = row_tensors(window_BT)
            yield Windows(idx_BT, targets_BT, targets_BT != IGNORE_INDEX)


def count_targets(split: TokenSplit, tokens: int | None = None) -> int:
    """Returns the number of targets of `split`, at most `tokens`."""
    targets = split.n_tokens - 1
    if split.ends is not None:
        targets = int(np.maximum(np.diff(split.ends, prepend=0) - 1, 0).sum())
    return targets if tokens is None else min(tokens, targets)


def require_targets(split: TokenSplit) -> None:
    """Raise `DataError` for a split of fewer than two tokens, or of isolated documents of one token each."""
    require_length(split, 1)
    if not count_targets(split):
        raise DataError(f"the {split.split} split of {split.corpus} has no document with two tokens")
