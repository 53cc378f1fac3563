"""Tests the rows of a comparison's n-grams: those that the models are trained on."""

from __future__ import annotations

import numpy as np

from lmzoo.compare.windows import separated, targets_of, training_rows
from lmzoo.data.batches import BatchStream
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.data.store import TokenSplit
from lmzoo.losses import IGNORE_INDEX
from lmzoo.train.config import TrainConfig

T = 8
JOINED = TokenSplit("sea", "train", np.arange(100), 100, 100, 100)
ISOLATED = TokenSplit("sea", "train", np.arange(100), 100, 100, 100, np.array([3, 30, 31, 80, 100]))
CONFIG = TrainConfig(steps=3, batch_size=2, grad_accumulation=2, seed=5)


def test_training_rows_are_those_of_the_training() -> None:
    rows = training_rows(JOINED, CONFIG, T, 10_000)
    assert np.array_equal(rows, BatchStream(JOINED.tokens, 2, T, 5).first_windows(12))
    assert targets_of(rows) == rows[:, 1:].size
    assert len(training_rows(JOINED, CONFIG, T, 20)) == 2, "as many tokens as are wanted"
    rows = training_rows(ISOLATED, CONFIG, T, 10_000)
    assert np.array_equal(rows, IsolatedBatches(ISOLATED, 2, T, 5).first_windows(12))
    assert targets_of(rows) < rows[:, 1:].size


def test_separated_has_a_mark_between_isolated_documents() -> None:
    assert separated(JOINED) is JOINED.tokens
    marked = separated(ISOLATED)
    assert np.flatnonzero(marked == IGNORE_INDEX).tolist() == [3, 31, 33, 83]
    assert marked[marked != IGNORE_INDEX].tolist() == list(range(100))
