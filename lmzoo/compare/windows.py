"""The rows of a text that models are trained on in a comparison, for n-grams that are counted on the same ones."""

from __future__ import annotations

import numpy as np

from lmzoo.data.batches import BatchStream
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.data.store import TokenSplit
from lmzoo.losses import IGNORE_INDEX
from lmzoo.train.config import TrainConfig


def training_rows(train: TokenSplit, config: TrainConfig, context_length: int, most_tokens: int) -> np.ndarray:
    """Returns the rows that models are trained on, each once: (rows, context_length + 1), padded with `IGNORE_INDEX`.

    Of more than `most_tokens` tokens, only the first ones that training reads.
    """
    sequences = config.steps * config.batch_size * config.grad_accumulation
    count = min(sequences, max(1, most_tokens // context_length))
    if train.ends is not None:
        return IsolatedBatches(train, config.batch_size, context_length, config.seed).first_windows(count)
    return BatchStream(train.tokens, 1, context_length, config.seed).first_windows(count)


def targets_of(rows: np.ndarray) -> int:
    """Returns the number of targets in rows."""
    return int((rows[:, 1:] != IGNORE_INDEX).sum())


def separated(split: TokenSplit) -> np.ndarray:
    """Returns the tokens of a split, with `IGNORE_INDEX` between isolated documents."""
    if split.ends is None:
        return split.tokens
    return np.insert(np.asarray(split.tokens, dtype=np.int64), split.ends[:-1], IGNORE_INDEX)
