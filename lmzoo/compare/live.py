"""Progress of a comparison that makes several runs at once: a table on a terminal, by rich, and lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lmzoo import humanize, terminal
from lmzoo.train.events import CellsEvent, CellState, Event
from lmzoo.train.progress import DRAWN_PER_SECOND, LINE_SECONDS, ProgressBar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

HEADINGS = ("run", "state", "step", "loss")
STYLES = {"waiting": "dim", "running": "bold", "done": "green", "stopped": "dim", "diverged": "red", "failed": "red"}
MARGIN = 6  # lines of a terminal that hold no run: headings, rule, sums, and what was there before


class ComparisonProgress(ProgressBar):
    """A listener that shows the bar of one run, or the states of several that are made at once."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._live: Live | None = None
        self._shown: dict[str, str] = {}  # the last state of each run that a line has told
        self._last_line = time.monotonic()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, CellsEvent):
            super().__call__(event)
        elif self._console.is_terminal:
            self._draw(event)
        else:
            self._lines(event)

    def _draw(self, event: CellsEvent) -> None:
        from rich.live import Live

        text = states_table(event, self._console.width, self._console.height - MARGIN)
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=DRAWN_PER_SECOND, transient=True)
            self._live.start()
        self._live.update(text)

    def _lines(self, event: CellsEvent) -> None:
        """Print a line for each run that has begun or ended, and now and then one for those that are running."""
        for cell in event.cells:
            if cell.state != "waiting" and self._shown.get(cell.label) != cell.state:
                self._shown[cell.label] = cell.state
                loss = (
                    "" if cell.state != "done" or cell.loss is None else f", validation loss {humanize.loss(cell.loss)}"
                )
                self._print(f"{cell.label}: {cell.state}{loss}")
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            parts = [f"{cell.label} {_step(cell)}" for cell in event.cells if cell.state == "running"]
            self._print("; ".join([sums(event), *parts]))

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        super()._close()


def states_table(event: CellsEvent, width: int, height: int) -> Text:
    """Make the table of all runs in at most `height` rows: if they are too many, those that do not run are counted."""
    rows = list(event.cells)
    counted: list[str] = []
    kinds: tuple[Literal["done", "stopped", "waiting"], ...] = ("done", "stopped", "waiting")
    for state in kinds:
        if len(rows) + len(counted) > max(1, height):
            number = sum(cell.state == state for cell in rows)
            rows = [cell for cell in rows if cell.state != state]
            counted += [f"{number} {state}"] if number else []
    cells = [(cell.label, cell.state, _step(cell), humanize.loss(cell.loss) if cell.step else "") for cell in rows]
    cells += [(text, "", "", "") for text in counted]
    styles = [STYLES[cell.state] for cell in rows] + ["dim"] * len(counted)
    shortened = _shortened(cells, width)
    table = terminal.table(HEADINGS, shortened, width=width, left=["run", "state"], drop=["step"], styles=styles)
    return table.append(f"\n{sums(event)}", "bold")


def sums(event: CellsEvent) -> str:
    """State how many runs are done, and the time left."""
    ended = sum(cell.state in ("done", "stopped", "diverged", "failed") for cell in event.cells)
    left = "" if event.seconds_left is None else f", {humanize.duration(event.seconds_left)} left"
    return f"{ended} of {len(event.cells)} runs done{left}"


def _step(cell: CellState) -> str:
    return f"{cell.step:,} of {cell.steps:,}" if cell.state == "running" else ""


def _shortened(cells: Sequence[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Cut the names that leave no room for the other columns in their middle."""
    room = max(12, width - 40)
    return [(_cut(name, room), *rest) for name, *rest in cells]


def _cut(name: str, room: int) -> str:
    """Return a name in at most `room` columns of a terminal: a Chinese character needs two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(name) <= room:
        return name
    start, end = set_cell_size(name, room // 2), set_cell_size(name[::-1], room - room // 2 - 1)[::-1]
    return f"{start.rstrip()}…{end.lstrip()}"
