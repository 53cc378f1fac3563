"""Tests the result of a run: its figures are those of the last state, and it is shown in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.runs.result import RunResult, result_of
from lmzoo.train.checkpoint import TrainingState

ENDED = TrainingState(
    step=4, tokens=1200, seconds=2.0, tokens_per_s=600.0, eval_seconds=0.5, val_loss=2.5, val_bits_per_byte=3.6
)


def test_result_of_a_state_has_its_figures() -> None:
    result = result_of(Path("runs/a"), ENDED)
    assert result == RunResult(Path("runs/a"), 2.5, 3.6, 1200, 2.0, 600.0, 0.5)
    assert repr(result) == "<run runs/a: validation loss 2.5000 nats per token after 1,200 tokens>"


@pytest.mark.parametrize("missing", ["val_loss", "val_bits_per_byte"])
def test_result_of_refuses_a_state_without_a_loss(missing: str) -> None:
    with pytest.raises(CheckpointError, match=r"^runs/a: its last checkpoint holds no validation loss$"):
        result_of(Path("runs/a"), dataclasses.replace(ENDED, **{missing: None}))
