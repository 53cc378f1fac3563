"""Tests of training batches that are drawn when they are needed."""

from __future__ import annotations

import pytest
import torch

from lmzoo.data.probes.batches import TaskBatches
from lmzoo.data.probes.groups import CyclicGroup
from lmzoo.errors import DataError

TASK = CyclicGroup(2)


def test_task_batches_are_a_function_of_seed_and_step() -> None:
    one, other = TaskBatches(TASK, 4, 20, seed=7), TaskBatches(TASK, 4, 20, seed=7)
    torch.manual_seed(3)
    wanted = [one.batch(step) for step in range(4)]
    other.restore(2, other.position(2))
    for step in (2, 3, 0):
        assert all(torch.equal(a, b) for a, b in zip(other.batch(step), wanted[step], strict=True))
    assert len({tuple(idx.flatten().tolist()) for idx, _ in wanted}) == 4
    assert not torch.equal(TaskBatches(TASK, 4, 20, seed=8).batch(0)[0], wanted[0][0])


def test_task_batches_ask_what_the_task_asks() -> None:
    idx, targets = TaskBatches(TASK, 4, 20, seed=7).batch(0)
    assert idx.shape == (4, 20)
    assert torch.equal(targets, TASK.products(idx))


def test_task_batches_differ_from_the_test_rows() -> None:
    batch, rows = TaskBatches(TASK, 256, 64, seed=0).batch(0)[0], TASK.test_rows(64)[0]
    assert not set(map(tuple, batch.tolist())) & set(map(tuple, rows.tolist()))


def test_task_batches_refuse_bad_sizes_and_fitting() -> None:
    with pytest.raises(DataError, match="batch_size=0 must be at least 1"):
        TaskBatches(TASK, 0, 20, seed=7)
    with pytest.raises(DataError, match="no text"):
        TaskBatches(TASK, 4, 20, seed=7).first_windows(3)
