"""Tests of batches of a stream: each window once, across documents, shuffled in blocks, resumable at any step."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmzoo.data.batches import BatchStream
from lmzoo.data.stream_batches import StreamBatches
from lmzoo.data.streaming import load_stream
from lmzoo.data.tokenizers import ByteTokenizer, train_tokenizer
from lmzoo.errors import CheckpointError, DataError

Write = Callable[[str, str | bytes], Path]
Make = Callable[..., StreamBatches]

TEXTS = [f"{i} lines of text {i * i}" + "." * (i % 11) for i in range(50)]
T, BLOCK = 8, 16


@pytest.fixture
def data(write: Write) -> str:
    write("d/validation.jsonl", json.dumps({"text": "for later"}))
    return f"hf:{write('d/train.jsonl', ''.join(json.dumps({'text': text}) + chr(10) for text in TEXTS)).parent}"


@pytest.fixture
def make(data: str) -> Iterator[Make]:
    """A function that makes batches: by default 5 windows of 8 bytes, in blocks of 16 windows."""
    made: list[StreamBatches] = []

    def _make(batch_size: int = 5, seed: int = 3, block_windows: int = BLOCK, context_length: int = T) -> StreamBatches:
        reader = load_stream(data).reader(train_tokenizer("byte", []))
        made.append(StreamBatches(reader, batch_size, context_length, seed, block_windows))
        return made[-1]

    yield _make
    for batches in made:
        batches.close()


def same(ours: tuple[torch.Tensor, torch.Tensor], theirs: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))


def test_stream_batches_have_each_window_of_a_block_once_in_random_order(make: Make) -> None:
    """Windows cross documents and the end of the data, which has 1,200 bytes here."""
    text = "".join(f"{text}\n\n" for text in TEXTS).encode()
    whole = text * 3
    batches = make(batch_size=BLOCK)
    orders = []
    for block in range(2 * len(text) // (BLOCK * T)):
        idx_BT, targets_BT = batches.batch(block)
        assert (idx_BT.dtype, targets_BT.dtype, tuple(idx_BT.shape)) == (torch.int64, torch.int64, (BLOCK, T))
        assert torch.equal(idx_BT[:, 1:], targets_BT[:, :-1])
        windows = [bytes([*idx.tolist(), int(target[-1])]) for idx, target in zip(idx_BT, targets_BT, strict=True)]
        start = block * BLOCK * T
        expected = [whole[s : s + T + 1] for s in range(start, start + BLOCK * T, T)]
        assert sorted(windows) == sorted(expected)
        orders.append([expected.index(window) for window in windows])
    assert list(range(BLOCK)) not in orders
    assert len({tuple(order) for order in orders}) == len(orders)


@pytest.mark.parametrize("count", [1, 5, 12, 37])
def test_stream_batches_first_windows_are_the_first_that_batch_returns(make: Make, count: int) -> None:
    ours, theirs = make(), make()
    batches = [theirs.batch(step) for step in range(8)]
    window_BT = torch.cat([torch.cat([idx_BT, targets_BT[:, -1:]], dim=1) for idx_BT, targets_BT in batches])
    assert torch.equal(torch.from_numpy(ours.first_windows(count)), window_BT[:count])
    assert ours.position(-(-count // 5)) == theirs_position(make, -(-count // 5)), "as after training on them"


def theirs_position(make: Make, steps: int) -> dict[str, Any]:
    batches = make()
    for step in range(steps):
        batches.batch(step)
    return batches.position(steps)


def test_stream_batches_order_depends_on_the_seed_only(make: Make) -> None:
    ours, again, other = (make(batch_size=BLOCK, seed=seed) for seed in (3, 3, 4))
    for step in range(3):
        assert same(ours.batch(step), again.batch(step))
        assert not same(ours.batch(step), other.batch(step))
        assert torch.equal(*(batches.batch(step)[0].sort(0).values.sum() for batches in (ours, other)))


@pytest.mark.parametrize("batch_size", [1, 5, 16, 40])
def test_stream_batches_restore_continues_with_the_same_batches(make: Make, batch_size: int) -> None:
    """Checked within a block, at its border, across the end of the data, and with a batch of several blocks."""
    whole, steps = make(batch_size), 400 // batch_size
    kept: list[tuple[dict[str, Any], tuple[torch.Tensor, torch.Tensor]]] = []
    for step in range(steps):
        position = json.loads(json.dumps(whole.position(step)))
        kept.append((position, whole.batch(step)))
    assert kept[-1][0]["epoch"] == 2
    for step in range(0, steps, max(1, steps // 15)):
        resumed = make(batch_size)
        resumed.restore(step, kept[step][0])
        for again in range(step, min(step + 5, steps)):
            assert resumed.position(again) == kept[again][0]
            assert same(resumed.batch(again), kept[again][1]), (step, again)
    assert same(make(batch_size).batch(steps - 1), kept[-1][1]), "a stream that starts at this step"


def test_stream_batches_do_not_go_back(make: Make) -> None:
    earlier, later = make(batch_size=BLOCK), make(batch_size=BLOCK)
    earlier.batch(0)
    later.restore(1, earlier.position(1))
    with pytest.raises(AssertionError, match="block 0 is past: the stream is at block 1"):
        later.batch(0)  # of the block just before the first one
    later.batch(2)
    with pytest.raises(AssertionError, match="block 1 is past: the stream is at block 2"):
        later.batch(1)


def test_stream_batches_position_at_the_first_steps(make: Make) -> None:
    batches = make()
    batches.restore(0, None)
    first = batches.batch(0)
    resumed = make()
    resumed.restore(0, batches.position(0))
    assert same(resumed.batch(0), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 3}, r"is of block=3, windows=16, context_length=8: step 7 needs \(2, 16, 8\)"),
        ({"windows": 1024}, "is of block=2, windows=1024"),
        ({"context_length": 9}, "is of block=2, windows=16, context_length=9"),
        ({"block": -1}, "the stream's position: block=-1 must be in"),
        ({"windows": 0}, "the stream's position: windows=0 must be a positive integer"),
        ({"context_length": 0}, "the stream's position: context_length=0 must be a positive integer"),
        ({"token": "1"}, "the stream's position: token='1': input should be a valid integer"),
        ({"document": 1}, "the stream's position: document=1 is not a setting"),
        ({"sha256": "0"}, "differs from the text where training stopped"),
    ],
)
def test_stream_batches_restore_refuses_impossible_positions(make: Make, change: dict[str, Any], message: str) -> None:
    batches = make()
    batches.batch(7)
    with pytest.raises(CheckpointError, match=message) as caught:
        make().restore(7, batches.position(7) | change)
    assert "\n" not in str(caught.value)


def test_stream_batches_restore_needs_a_position(make: Make) -> None:
    with pytest.raises(CheckpointError, match="position must be given: the data are a stream"):
        make().restore(7, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"context_length": 0}, "context_length=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be from 0"),
    ],
)
def test_stream_batches_name_impossible_values(make: Make, fields: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**fields)


def test_stream_batches_raise_for_an_unreadable_text_when_it_is_used(write: Write) -> None:
    """The thread reads the bad text earlier, but the error is raised only at the batch that needs it."""
    texts = ["a" * 62] * 30 + ["\u00e9"]
    path = write("late.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    reader = load_stream(f"hf:{path}").reader(train_tokenizer("char", ["a\n"]))
    batches = StreamBatches(reader, BLOCK, T, 0, BLOCK)  # 128 tokens; 26 rows of 64 tokens are in the training split
    for step in range(12):
        batches.batch(step)
    with pytest.raises(DataError, match="row 30: character 'é'"):
        batches.batch(12)  # the last target is the first token of that row
    batches.close()


class SlowTokenizer(ByteTokenizer):
    """A tokenizer that is slow from the 150th text on."""

    texts = 0

    def encode_array(self, text: str) -> np.ndarray:
        self.texts += 1
        if self.texts > 150:
            time.sleep(0.1)
        return super().encode_array(text)


@pytest.mark.timing
def test_stream_batches_close_ends_the_thread(data: str) -> None:
    """The thread is in the middle of a block: the first takes about 130 texts, the second would take 10 seconds."""
    assert not reading()
    batches = StreamBatches(load_stream(data).reader(SlowTokenizer()), 5, T, 0, block_windows=400)
    batches.batch(0)
    assert reading()
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 2
    assert not reading()


def reading() -> bool:
    return any(thread.name.startswith("lmzoo-data") for thread in threading.enumerate())


def test_batch_stream_needs_no_position() -> None:
    tokens = torch.arange(200).numpy()
    ours, theirs = BatchStream(tokens, 4, T, 1), BatchStream(tokens, 4, T, 1)
    assert ours.position(5) is None
    theirs.restore(5, None)
    assert same(ours.batch(5), theirs.batch(5))
    ours.close()
