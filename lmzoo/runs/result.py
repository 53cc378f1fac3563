"""The result of a run, as `lmzoo.train` returns it: its figures, a table of its log, and a plot of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo import plotting
from lmzoo.errors import CheckpointError
from lmzoo.runs.metrics import read_metrics
from lmzoo.train.checkpoint import TrainingState


@dataclass(frozen=True)
class RunResult:
    """Result of a run: validation `loss` in nats per token, `seconds` and median `tokens_per_s` of the training steps.

    `eval_seconds` is the time of all evaluations, which is not a part of `seconds`.
    """

    path: Path
    loss: float
    bits_per_byte: float
    tokens: int
    seconds: float
    tokens_per_s: float
    eval_seconds: float

    def __repr__(self) -> str:
        return f"<run {self.path}: validation loss {self.loss:.4f} nats per token after {self.tokens:,} tokens>"

    def to_frame(self) -> Any:
        """Returns the lines of metrics.jsonl as a `pandas.DataFrame`: losses, tokens, seconds and others by step."""
        return plotting.frame(read_metrics(self.path))

    def plot(self, ax: Any = None) -> Any:
        """Draws the training and validation loss; returns the matplotlib axes, `ax` or new ones."""
        lines = read_metrics(self.path)
        names = {"train": "training", "val": "validation"}
        losses = {
            name: [(line["tokens"], line["loss"]) for line in lines if line["split"] == split]
            for split, name in names.items()
        }
        return plotting.curves(losses, x="tokens", y="loss (nats per token)", ax=ax)


def result_of(run: Path, state: TrainingState) -> RunResult:
    """Returns the result of a run that has made its last step. Raises `CheckpointError` if `state` holds no loss."""
    if state.val_loss is None or state.val_bits_per_byte is None:
        raise CheckpointError(f"{run}: its last checkpoint holds no validation loss")
    return RunResult(
        path=run,
        loss=state.val_loss,
        bits_per_byte=state.val_bits_per_byte,
        tokens=state.tokens,
        seconds=state.seconds,
        tokens_per_s=state.tokens_per_s,
        eval_seconds=state.eval_seconds,
    )
