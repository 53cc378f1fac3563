"""Tests batches of isolated documents: a pure function of seed and step; each row once per epoch; little padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from lmzoo.data.batches import random_numbers
from lmzoo.data.documents import widths
from lmzoo.data.isolated_batches import IsolatedBatches, deal
from lmzoo.data.store import TokenSplit
from lmzoo.errors import DataError
from lmzoo.losses import IGNORE_INDEX

T, B = 16, 4


def documents(count: int = 200, *, longest: float = 60.0) -> TokenSplit:
    """Return documents of many sizes, most of them short; their tokens equal their places."""
    sizes = np.random.default_rng(0).exponential(longest / 5, count).clip(1, longest).astype(np.int64)
    tokens = np.arange(sizes.sum(), dtype=np.int64)
    return TokenSplit("sea", "train", tokens, tokens.size, tokens.size, tokens.size, np.cumsum(sizes))


def batches_of(split: TokenSplit, seed: int = 7, batch_size: int = B) -> IsolatedBatches:
    return IsolatedBatches(split, batch_size, T, seed)


def targets_in(batch: tuple[torch.Tensor, torch.Tensor]) -> list[int]:
    idx_BT, targets_BT = batch
    kept = targets_BT != IGNORE_INDEX
    assert torch.equal(targets_BT[kept], idx_BT[kept] + 1)
    return targets_BT[kept].tolist()


def all_targets(split: TokenSplit) -> set[int]:
    assert split.ends is not None
    return set(range(split.n_tokens)) - {0, *split.ends[:-1].tolist()}


@pytest.mark.parametrize("count", [1, 3, 17, 500])
def test_deal_has_each_row_once_in_full_batches(count: int) -> None:
    targets_N = np.random.default_rng(1).integers(1, T + 1, count)
    dealt = deal(targets_N, B, T, random_numbers(0, 0))
    rows = [row for batch in dealt for row in batch.rows_B.tolist() if row >= 0]
    assert sorted(rows) == list(range(count))
    partial = 0
    for width, rows_B in dealt:
        real = rows_B[rows_B >= 0]
        assert len(rows_B) % B == 0, "so that ranks get equally many rows"
        assert targets_N[real].max() <= width <= T
        assert width in widths(T)
        assert len(rows_B) * width <= B * T
        partial += len(real) < len(rows_B)
    assert partial == (1 if count % B else partial)
    assert partial <= 1


def test_batch_depends_on_seed_and_step_alone() -> None:
    split = documents()
    forward = batches_of(split)
    steps = range(3 * forward.batches_per_epoch)
    expected = [forward.batch(step) for step in steps]
    backward = batches_of(split)
    for step in reversed(steps):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(backward.batch(step), expected[step], strict=True))
    assert targets_in(batches_of(split, seed=8).batch(0)) != targets_in(expected[0])


def test_batch_has_each_target_once_in_an_epoch_in_another_order() -> None:
    split = documents()
    batches, wanted, orders = batches_of(split), all_targets(split), set[tuple[int, ...]]()
    per_epoch = batches.batches_per_epoch
    for epoch in range(3):
        found = [batches.batch(epoch * per_epoch + at) for at in range(per_epoch)]
        counts = Counter(target for batch in found for target in targets_in(batch))
        assert counts.keys() == wanted
        assert set(counts.values()) == {1}
        assert batches.targets_per_batch == pytest.approx(len(wanted) / per_epoch)
        orders.add(tuple(targets_in(batch)[0] for batch in found))
    assert len(orders) == 3


def test_batch_is_mostly_full() -> None:
    """Rows of similar length stand together: in rows of the context length a third of this text would be targets."""
    split = documents(2000, longest=T)
    batches = batches_of(split)
    inputs = sum(batches.batch(step)[0].numel() for step in range(batches.batches_per_epoch))
    assert len(all_targets(split)) / inputs > 0.8
    assert batches.targets_per_batch > 0.7 * B * T


def test_batch_order_never_changes() -> None:
    # A resumed run, or a comparison on another machine, must use the same tokens.
    batches = batches_of(documents())
    assert [batches.batch(step)[0][:, 0].tolist() for step in (0, 50)] == [
        [1590, 2108, 2000, 382],
        [1421, 2162, 1574, 1684],
    ]


def test_batch_of_few_documents_has_empty_rows() -> None:
    idx_BT, targets_BT = batches_of(documents(1), batch_size=8).batch(5)
    assert idx_BT.shape[0] == 8
    assert int((targets_BT != IGNORE_INDEX).any(dim=1).sum()) < 8
    assert int(idx_BT.min()) >= 0


@pytest.mark.parametrize("count", [1, 9, 10_000])
def test_first_windows_are_the_rows_of_the_first_batches(count: int) -> None:
    batches = batches_of(documents())
    rows = batches.first_windows(count)
    assert rows.shape[1] == T + 1
    steps = range(min(batches.batches_per_epoch, -(-count // B)))
    expected = [target for step in steps for target in targets_in(batches.batch(step))]
    assert rows[:, 1:][rows[:, 1:] != IGNORE_INDEX].tolist() == expected
    assert (rows[:, 0] != IGNORE_INDEX).all()


def test_isolated_batches_name_impossible_values() -> None:
    tokens = np.arange(3)
    with pytest.raises(DataError, match="no document with two tokens"):
        IsolatedBatches(TokenSplit("sea", "train", tokens, 3, 3, 3, np.arange(1, 4)), B, T, 0)
    with pytest.raises(DataError, match="batch_size=0 must be at least 1"):
        batches_of(documents(), batch_size=0)
