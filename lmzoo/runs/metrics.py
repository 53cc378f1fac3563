"""`metrics.jsonl`: one JSON object per line, for every `log_every`-th training step and for every evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeGuard

from lmzoo import files
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, reading
from lmzoo.train.events import EndEvent, EvalEvent, Event, SavingEvent, StepEvent

METRICS_FILE = "metrics.jsonl"
_MAX_BYTES = 1 << 30
_TAIL_BYTES = 1 << 12


class MetricsWriter:
    """A listener that appends lines with step, split ("train" | "val"), loss (nats per token), tokens, seconds, etc.

    `seconds` and `tokens` count the training so far. A resumed run first drops the lines after its step; it writes them
    again, with the same losses. Lines up to a checkpoint's step are fsynced before the checkpoint is committed.
    """

    def __init__(self, run: Path, log_every: int, *, after_step: int = 0, evaluated: bool = True) -> None:
        """Open the file. `evaluated`: the evaluation that was due after `after_step` has been made.

        Raises `CheckpointError` for an error of the disk.
        """
        self.log_every = log_every
        self._path = run / METRICS_FILE
        lines, self.unreadable = _lines(self._path)
        last = after_step if evaluated else after_step - 1
        kept = [line for line in lines if line["step"] <= (last if line["split"] == "val" else after_step)]
        atomic.write_file(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def __call__(self, event: Event) -> None:
        """Write a line for an event that is logged. Raises `CheckpointError` for an error of the disk."""
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
                **{f"aux.{name}": value for name, value in event.auxiliary.items()},
            )
        elif isinstance(event, EvalEvent):
            self._write(
                step=event.step,
                split="val",
                loss=event.loss,
                bits_per_byte=event.bits_per_byte,
                tokens=event.tokens,
                seconds=round(event.seconds, 4),
                **({"activations": dict(event.activations)} if event.activations else {}),
            )
        elif isinstance(event, SavingEvent):
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise atomic.cannot_write(self._path, error) from error
        elif isinstance(event, EndEvent):
            os.close(self._descriptor)

    def _write(self, **values: Any) -> None:
        """Write a line without buffering: lines are rare, and a killed run should not lose any."""
        try:
            atomic.write_all(self._descriptor, (json.dumps(values) + "\n").encode())
        except OSError as error:
            raise atomic.cannot_write(self._path, error) from error


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Read the valid lines of a run's metrics.jsonl. Raises `CheckpointError` if there is no such file."""
    path = Path(run) / METRICS_FILE
    if not os.path.lexists(path):
        raise CheckpointError(f"{path}: there is no such file")
    return _lines(path)[0]


def last_step(run: Path) -> tuple[int, float] | None:
    """Return step and training loss of the last logged step, from the end of the file; None if it is not there."""
    try:
        with files.open_regular(run / METRICS_FILE) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return None
    for text in reversed(tail.splitlines()):
        try:
            line = files.parse_json(text)
        except ValueError:  # cut at its beginning, or written at this moment
            continue
        if _is_line(line) and line["split"] == "train":
            return line["step"], line["loss"]
    return None


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the valid lines and the number of invalid ones, which are damaged or were cut short by a kill."""
    if not os.path.lexists(path):
        return [], 0
    reading.regular_size(path)
    lines: list[dict[str, Any]] = []
    unreadable = 0
    try:
        content = files.read_bytes(path, _MAX_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {files.reason(error)}") from error
    for text in content.splitlines():
        try:
            line = files.parse_json(text)
        except ValueError:
            line = None
        if _is_line(line):
            lines.append(line)
        else:
            unreadable += 1
    return lines, unreadable


def _is_line(line: object) -> TypeGuard[dict[str, Any]]:
    """True for an object with the values that every line has: step, split, loss and tokens."""
    if not isinstance(line, dict) or not isinstance(line.get("split"), str):
        return False
    counts = all(type(line.get(name)) is int and 0 <= line[name] < 1 << 63 for name in ("step", "tokens"))
    return counts and type(line.get("loss")) in (int, float)
