"""Tests of batches: a pure function of seed and step; each window once per epoch, each target once per evaluation."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from lmzoo.data.batches import BatchStream, eval_windows, require_stride
from lmzoo.errors import ConfigError, DataError


def _tokens(n: int) -> np.ndarray:
    """Tokens that equal their position, so that a batch shows where it was cut."""
    return np.arange(n, dtype=np.uint16)


def test_batch_targets_are_the_tokens_shifted_by_one() -> None:
    idx_BT, targets_BT = BatchStream(_tokens(1000), 4, 8, seed=0).batch(3)
    assert idx_BT.shape == targets_BT.shape == (4, 8)
    assert idx_BT.dtype == targets_BT.dtype == torch.int64
    assert idx_BT.is_contiguous()
    assert targets_BT.is_contiguous()
    assert torch.equal(targets_BT, idx_BT + 1)
    assert torch.equal(idx_BT, idx_BT[:, :1] + torch.arange(8))


def test_batch_depends_on_seed_and_step_alone() -> None:
    forward = BatchStream(_tokens(1000), 4, 8, seed=7)
    expected = [forward.batch(step) for step in range(100)]
    backward = BatchStream(_tokens(1000), 4, 8, seed=7)
    for step in reversed(range(100)):
        idx_BT, targets_BT = backward.batch(step)
        assert torch.equal(idx_BT, expected[step][0])
        assert torch.equal(targets_BT, expected[step][1])
    other = BatchStream(_tokens(1000), 4, 8, seed=8)
    assert not torch.equal(other.batch(0)[0], expected[0][0])


def test_first_windows_are_the_first_that_batch_returns() -> None:
    stream = BatchStream(_tokens(200), 3, 10, seed=42)
    idx_BT, targets_BT = stream.batch(0)
    window_BT = torch.from_numpy(stream.first_windows(3))
    assert torch.equal(window_BT, torch.cat([idx_BT, targets_BT[:, -1:]], dim=1).to(window_BT.dtype))
    assert len(stream.first_windows(1000)) == stream.windows_per_epoch == 19, "each once"


def test_batch_order_never_changes() -> None:
    # A resumed run, or a comparison on another machine, must use the same tokens.
    assert BatchStream(_tokens(200), 6, 10, seed=42).batch(5)[0][:, 0].tolist() == [144, 174, 134, 64, 4, 164]


@pytest.mark.parametrize("n_tokens", [9, 10, 15, 16, 17, 18, 100, 1000])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batch_stream_has_every_window_once_in_an_epoch(n_tokens: int, batch_size: int) -> None:
    context_length = 8
    stream = BatchStream(_tokens(n_tokens), batch_size, context_length, seed=1)
    size = stream.windows_per_epoch
    assert size >= max(1, (n_tokens - 1) // context_length - 1)
    steps = -(-8 * size // batch_size)
    starts = torch.cat([stream.batch(step)[0][:, 0] for step in range(steps)]).tolist()
    offsets = set()
    for epoch in range(8):
        found = sorted(starts[epoch * size : (epoch + 1) * size])
        offset = found[0]
        assert found == [offset + index * context_length for index in range(size)]
        assert 0 <= offset < 2 * context_length
        assert found[-1] + context_length < n_tokens
        offsets.add(offset)
    if n_tokens == 1000:
        orders = [starts[epoch * size : (epoch + 1) * size] for epoch in range(8)]
        assert len(offsets) > 2
        assert all(order != sorted(order) for order in orders)
        assert len({tuple(start // context_length for start in order) for order in orders}) == 8


def test_batch_stream_reaches_the_end_of_the_text() -> None:
    stream = BatchStream(_tokens(100), 1, 8, seed=0)
    seen = {int(stream.batch(step)[1][0, -1]) for step in range(stream.windows_per_epoch * 40)}
    assert 99 in seen


@pytest.mark.timing
def test_batch_is_fast() -> None:
    stream = BatchStream(np.zeros(1 << 20, dtype=np.uint16), 16, 256, seed=0)
    stream.batch(0)
    times = []
    for step in range(200):
        start = time.perf_counter()
        stream.batch(step)
        times.append(time.perf_counter() - start)
    # Measured 30 microseconds; the minimum of many runs does not depend on the load of the machine.
    assert min(times) < 200e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"context_length": 0}, "context_length=0 must be at least 1"),
        ({"context_length": 100}, "100 tokens: context_length=100 needs 101"),
        ({"seed": -1}, "seed=-1 must be from 0"),
    ],
)
def test_batch_stream_names_impossible_values(fields: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BatchStream(_tokens(100), **{"batch_size": 2, "context_length": 8, "seed": 0, **fields})


@pytest.mark.parametrize("n_tokens", [2, 8, 9, 10, 12, 13, 33, 100])
@pytest.mark.parametrize("stride", [1, 3, 7, 8])
def test_eval_windows_count_every_target_once_with_enough_context(n_tokens: int, stride: int) -> None:
    """In the order of the text, each window `stride` tokens after the one before it."""
    seen: list[int] = []
    starts: list[int] = []
    for idx_BT, targets_BT, counted_BT in eval_windows(_tokens(n_tokens), 3, 8, stride):
        assert idx_BT.shape == targets_BT.shape == counted_BT.shape
        assert idx_BT.shape[0] <= 3
        assert idx_BT.dtype == targets_BT.dtype == torch.int64
        assert counted_BT.any(dim=1).all()
        exists_BT = targets_BT != -100
        assert torch.equal(targets_BT[exists_BT], idx_BT[exists_BT] + 1)
        assert not (counted_BT & ~exists_BT).any()
        starts += idx_BT[:, 0].tolist()
        seen += targets_BT[counted_BT].tolist()
        context_BT = targets_BT - idx_BT[:, :1]  # the ids are positions
        later_BT = counted_BT & (idx_BT[:, :1] > 0)
        assert (context_BT[later_BT] >= 8 - stride + 1).all()
    assert seen == list(range(1, n_tokens))
    assert starts == list(range(0, len(starts) * stride, stride))


def test_eval_windows_without_a_stride_do_not_overlap() -> None:
    ((idx_BT, targets_BT, counted_BT),) = eval_windows(_tokens(12), 3, 8)
    assert idx_BT.tolist() == [list(range(8)), [8, 9, 10, 0, 0, 0, 0, 0]]
    assert targets_BT.tolist() == [list(range(1, 9)), [9, 10, 11, *[-100] * 5]]
    assert counted_BT.tolist() == [[True] * 8, [True] * 3 + [False] * 5]


@pytest.mark.parametrize("stride", [0, -1, 9, True, 2.0])
def test_require_stride_names_the_rule(stride: int) -> None:
    with pytest.raises(ConfigError, match=rf"stride={stride!r} must be an integer in \[1, context_length=8\]"):
        require_stride(stride, 8)
    with pytest.raises(ConfigError):
        eval_windows(_tokens(20), 2, 8, stride)
    assert (require_stride(None, 8), require_stride(8, 8)) == (8, 8)


def test_eval_windows_need_two_tokens() -> None:
    with pytest.raises(DataError, match="1 tokens: evaluation needs at least 2"):
        eval_windows(_tokens(1), 2, 8)
