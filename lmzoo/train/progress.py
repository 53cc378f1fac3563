"""Progress of a run: a bar on a terminal, by rich (imported at the first event), and lines elsewhere."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from lmzoo import humanize, terminal
from lmzoo.train.events import (
    CheckpointEvent,
    DataEvent,
    EndEvent,
    EvalEvent,
    EvaluatingEvent,
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
LINE_SECONDS = 10.0  # between two lines of a log
NARROW = 50  # columns below which the time left is left out
LEFT_OF_TEXT = 42  # columns of name, a short bar, steps and time left


class ProgressBar:
    """A listener that shows the steps done, the time left, loss, speed and utilisation, and a line for each evaluation.

    On a terminal, they are a bar; in a log or a notebook, a line now and then. All of it goes to stderr by default.
    Utilisation is the FLOPs per second of the run divided by the rate of the machine's best matrix product in the same
    precision, measured at the start.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or terminal.progress_console()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._log = Log(self._print)
        self._text = ""  # of the latest step
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
            self._text = self._fitting(f"loss {event.loss:.4f}", speed, self._utilisation(event))
            self._show(None, None, event.step, self._text)
        elif isinstance(event, EvaluatingEvent):
            self._show(None, None, event.step, f"evaluating: {event.done / max(event.total, 1):.0%}")
        elif isinstance(event, EvalEvent):
            self._show(None, None, event.step, self._text)
            self._print(f"step {event.step}: validation {event.loss:.4f} nats, {event.bits_per_byte:.4f} bits per byte")
        elif isinstance(event, CheckpointEvent):
            self._saved = str(event.path)
        elif isinstance(event, NoteEvent):
            self._print(event.message)
        elif isinstance(event, EndEvent):
            self._close()
            if self._saved:
                self._print(f"saved in {self._saved}")
                self._saved = None  # a comparison ends after its last run has ended

    def doing(self, what: str, step: int) -> None:
        """Show what takes time before the next event."""
        self._show(None, None, step, what)

    def _utilisation(self, event: StepEvent) -> str:
        if self._best_rate is None:
            return "utilisation n/a"
        rate = event.tokens_per_s * self._flops_per_token
        self._best_rate = max(self._best_rate, rate)  # the machine was busy when the rate was measured
        return f"{rate / self._best_rate:.0%} of peak"

    def _fitting(self, *parts: str) -> str:
        """Returns the first parts, as many as fit beside the bar, and always the first one."""
        text = parts[0]
        for part in parts[1:]:
            if self._console.is_terminal and len(text) + 2 + len(part) > self._console.width - LEFT_OF_TEXT:
                break
            text += f"  {part}"
        return text

    def _show(self, what: str | None, total: int | None, done: int, text: str) -> None:
        if not self._console.is_terminal:
            self._log.show(what, total, done, text)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        if self._bar is None:
            bar = BarColumn(None, table_column=Column(ratio=1))  # the only column that shrinks in a narrow terminal
            text_column = TextColumn("{task.fields[text]}")
            narrow = self._console.width < NARROW
            left = () if narrow else (TimeRemainingColumn(compact=True), TextColumn("left"))
            columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), *left, text_column)
            self._bar = Progress(*columns, console=self._console, expand=True, refresh_per_second=DRAWN_PER_SECOND)
            self._bar.start()
        if self._task is None:
            self._task = self._bar.add_task(what or "", total=total, completed=done, text=text)
        else:
            self._bar.update(self._task, description=what, total=total, completed=done, text=text)

    def _print(self, line: str) -> None:
        line = humanize.plain(line)
        if self._console.is_terminal:  # between words only: a path that is broken cannot be copied
            line = textwrap.fill(line, self._console.width, break_long_words=False, break_on_hyphens=False)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._log = Log(self._print)


class Log:
    """Progress as lines, at most one in `LINE_SECONDS`, where no bar can be drawn; short work shows none."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._what, self._total, self._first = "", 0, 0
        self._written = time.monotonic()
        self._began: float | None = None  # when the first step was done

    def show(self, what: str | None, total: int | None, done: int, text: str) -> None:
        """Note the progress, and write a line if the last one is long ago. None leaves `what` and `total` as before."""
        now = time.monotonic()
        if what is not None and what != self._what:
            self._what, self._first, self._began = what, done, None
        elif self._began is None and done > self._first:
            # The first step takes longer than others, and what comes before it does not take longer in a longer run.
            self._first, self._began = done, now
        self._total = self._total if total is None else total
        if now - self._written < LINE_SECONDS:
            return
        self._written = now
        advanced = done - self._first
        time_left = ""
        if self._began is not None and advanced > 0:
            time_left = f", {humanize.duration((now - self._began) / advanced * (self._total - done))} left"
        self._write(f"{self._what} {done:,} of {self._total:,}{time_left}{'  ' if text else ''}{text}")


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
