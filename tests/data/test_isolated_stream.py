"""Tests batches of isolated documents of a stream: each row of a block once, resumable at any step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.data.isolated_stream import IsolatedStreamBatches
from lmzoo.data.streaming import load_stream
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import CheckpointError, DataError
from lmzoo.losses import IGNORE_INDEX

Write = Callable[[str, str | bytes], Path]
Make = Callable[..., IsolatedStreamBatches]

TEXTS = [f"{i} lines of text {i * i}" + "." * (i * i % 31) for i in range(50)]
T, BLOCK = 24, 16


@pytest.fixture
def data(write: Write) -> str:
    write("d/validation.jsonl", json.dumps({"text": "for later"}))
    return f"hf:{write('d/train.jsonl', ''.join(json.dumps({'text': text}) + chr(10) for text in TEXTS)).parent}"


@pytest.fixture
def make(data: str) -> Iterator[Make]:
    made: list[IsolatedStreamBatches] = []

    def _make(batch_size: int = 3, seed: int = 3, block_windows: int = BLOCK) -> IsolatedStreamBatches:
        reader = load_stream(data).reader(train_tokenizer("byte", []))
        made.append(IsolatedStreamBatches(reader, batch_size, T, seed, block_windows))
        return made[-1]

    yield _make
    for batches in made:
        batches.close()


def rows_of(batch: tuple[torch.Tensor, torch.Tensor]) -> list[bytes]:
    """Return the texts of the rows that are not empty."""
    idx_BT, targets_BT = batch
    kept = [(idx, targets[targets != IGNORE_INDEX]) for idx, targets in zip(idx_BT, targets_BT, strict=True)]
    return [bytes([int(idx[0]), *targets.tolist()]) for idx, targets in kept if len(targets)]


def expected_rows() -> list[bytes]:
    texts = [f"{text}\n\n".encode() for text in TEXTS]
    return [text[start : start + T + 1] for text in texts for start in range(0, len(text) - 1, T)]


def test_isolated_stream_batches_have_each_row_once(make: Make) -> None:
    """In an order that depends on the seed; a row is of one document, and the data start again after their end."""
    wanted = (2 * expected_rows())[: 5 * BLOCK]
    orders = []
    for seed in (3, 3, 4):
        batches, found = make(seed=seed), list[bytes]()
        step = 0
        while len(found) < len(wanted):
            found += rows_of(batches.batch(step))
            step += 1
        for block in range(5):
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            assert sorted(found[rows]) == sorted(wanted[rows])
        orders.append(found)
    assert orders[0] == orders[1] != orders[2]


def test_isolated_stream_batches_restore_continues_with_the_same_batches(make: Make) -> None:
    whole, kept = make(), list[tuple[dict[str, Any], list[bytes]]]()
    for step in range(60):
        position = json.loads(json.dumps(whole.position(step)))
        kept.append((position, rows_of(whole.batch(step))))
    assert kept[-1][0]["epoch"] >= 1
    assert any(position["token"] for position, _ in kept), "a block that begins inside of a document"
    for step in range(0, 55, 3):
        resumed = make()
        resumed.restore(step, kept[step][0])
        for again in range(step, step + 5):
            assert resumed.position(again) == kept[again][0]
            assert rows_of(resumed.batch(again)) == kept[again][1], (step, again)


def test_isolated_stream_batches_first_windows_are_the_rows_of_the_first_batches(make: Make) -> None:
    ours, theirs = make(), make()
    rows = ours.first_windows(10)
    expected = [row for step in range(4) for row in rows_of(theirs.batch(step))]
    assert [bytes(row[row != IGNORE_INDEX].tolist()) for row in rows] == expected
    assert rows.shape[1] == T + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": 8}, r"is of first=8, windows=16, context_length=24: step 7 needs \(16, 24\)"),
        ({"windows": 1024}, "windows=1024"),
        ({"context_length": 9}, "context_length=9"),
        ({"first": -1}, "the stream's position: first=-1 must be in"),
        ({"sha256": "0"}, "differs from the text where training stopped"),
    ],
)
def test_isolated_stream_batches_restore_refuses_impossible_positions(
    make: Make, change: dict[str, Any], message: str
) -> None:
    batches = make()
    batches.batch(7)
    with pytest.raises(CheckpointError, match=message):
        make().restore(7, batches.position(7) | change)
    with pytest.raises(CheckpointError, match="position must be given: the data are a stream"):
        make().restore(7, None)


def test_isolated_stream_batches_refuse_data_without_targets(write: Write) -> None:
    path = write("empty.jsonl", "".join(json.dumps({"text": ""}) + "\n" for _ in range(20)))
    reader = load_stream(f"hf:{path}").reader(train_tokenizer("bpe:257", ["\n\n\n\n"]))
    batches = IsolatedStreamBatches(reader, 1, T, 0, 2)
    with pytest.raises(DataError, match="no document has two tokens"):
        batches.batch(0)
    batches.close()
