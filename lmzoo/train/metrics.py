"""`metrics.jsonl`: one JSON object a line, for training every `log_every` steps and for every evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from lmzoo import commit
from lmzoo.errors import CheckpointError
from lmzoo.train.events import EndEvent, EvalEvent, Event, StepEvent

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """A listener that appends lines of step, split ("train" | "val"), loss (nats per token), tokens, seconds and more.

    `seconds` and `tokens` are those of training so far. A resumed run first drops the lines after its step: they are
    written again, with the same losses.
    """

    def __init__(self, run: Path, log_every: int, *, after_step: int = 0) -> None:
        self.log_every = log_every
        path = run / METRICS_FILE
        kept = [line for line in _lines(path) if line["step"] <= after_step]
        commit.write_file(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepEvent) and event.step % self.log_every == 0:
            self._write(
                step=event.step,
                split="train",
                loss=event.loss,
                tokens=event.tokens,
                seconds=round(event.seconds, 4),
                learning_rate=event.learning_rate,
                grad_norm=event.grad_norm,
                tokens_per_s=round(event.tokens_per_s, 1),
            )
        elif isinstance(event, EvalEvent):
            self._write(
                step=event.step,
                split="val",
                loss=event.loss,
                bits_per_byte=event.bits_per_byte,
                tokens=event.tokens,
                seconds=round(event.seconds, 4),
            )
        elif isinstance(event, EndEvent):
            self._file.close()

    def _write(self, **values: Any) -> None:
        try:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()  # at once: a line is rare, and a killed run should not lose it
            if values["split"] == "val":
                os.fsync(self._file.fileno())
        except OSError as error:
            raise commit.cannot_write(Path(self._file.name), error) from error


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl. Raises `CheckpointError` when there is no such file."""
    path = Path(run) / METRICS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    return _lines(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines: the last one may have been cut short by a kill."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
