"""Progress bar on a terminal, by rich (imported at the first event)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from lmzoo import humanize
from lmzoo.train.events import (
    CheckpointEvent,
    DataEvent,
    EndEvent,
    EvalEvent,
    Event,
    NoteEvent,
    StartEvent,
    StepEvent,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# A Python thread draws the bar and takes time from the training steps: rich's default, 10 per second, is too often.
DRAWN_PER_SECOND = 2


class ProgressBar:
    """A listener that shows a bar with time left, loss, speed and utilisation, and a line for each evaluation.

    Utilisation is the FLOPs per second of the run divided by the rate of the machine's best matrix product in the same
    precision, measured at the start.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._saved: str | None = None
        self._flops_per_token = 0.0
        self._best_rate: float | None = None  # FLOPs/s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, event: Event) -> None:
        if isinstance(event, DataEvent):
            self._show(event.what, event.total, event.done, "")
        elif isinstance(event, StartEvent):
            self._close()
            size = f"{event.params:,} parameters, {event.tokens_per_step:,} tokens a step"
            self._print(f"{event.model}: {size}, {event.precision} on {event.device}, in {event.path}")
            self._flops_per_token = event.flops_per_step / event.tokens_per_step
            self._best_rate = _best_rate(event.precision, event.device)
            self._show(event.model, event.steps, event.step, "")
        elif isinstance(event, StepEvent):
            speed = f"{event.tokens_per_s:,.0f} tokens/s"
            self._show(None, None, event.step, f"loss {event.loss:.4f}  {speed}  {self._utilisation(event)}")
        elif isinstance(event, EvalEvent):
            self._print(f"step {event.step}: validation {event.loss:.4f} nats, {event.bits_per_byte:.4f} bits per byte")
        elif isinstance(event, CheckpointEvent):
            self._saved = str(event.path)
        elif isinstance(event, NoteEvent):
            self._print(event.message)
        elif isinstance(event, EndEvent):
            self._close()
            if self._saved:
                self._print(f"saved in {self._saved}")

    def _utilisation(self, event: StepEvent) -> str:
        if self._best_rate is None:
            return "utilisation n/a"
        rate = event.tokens_per_s * self._flops_per_token
        self._best_rate = max(self._best_rate, rate)  # the machine was busy when the rate was measured
        return f"{rate / self._best_rate:.0%} of peak"

    def _show(self, what: str | None, total: int | None, done: int, text: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        if self._bar is None:
            bar = BarColumn(None, table_column=Column(ratio=1))  # the only column that shrinks in a narrow terminal
            text_column = TextColumn("{task.fields[text]}")
            left = (TimeRemainingColumn(compact=True), TextColumn("left"))
            columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), *left, text_column)
            self._bar = Progress(*columns, console=self._console, expand=True, refresh_per_second=DRAWN_PER_SECOND)
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(what or "", total=total, completed=done, text=text)
        else:
            self._bar.update(self._task, description=what, total=total, completed=done, text=text)

    def _print(self, line: str) -> None:
        from rich.console import Console

        console = self._bar.console if self._bar else self._console or Console()
        console.print(humanize.plain(line), markup=False, highlight=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _best_rate(precision: str, device: str) -> float | None:
    """Measure the FLOPs/s of the machine's matrix product in a fraction of a second; None if it cannot be measured."""
    import torch

    from lmzoo.hardware import matrix_rate

    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    shape = (512, 1024, 1024) if device == "cpu" else (8192, 8192, 8192)
    try:
        return matrix_rate(dtype, shape, device=torch.device(device), seconds=0.1)
    except RuntimeError:  # out of memory, or the device does not support the product
        return None
