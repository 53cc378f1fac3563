"""Consoles for results (stdout) and for progress and notes (stderr), by rich; imports rich only when used.

A table never cuts a figure: it has no box, is as wide as it needs to be where stdout is no terminal, and leaves out
whole columns where a terminal is too narrow. NO_COLOR turns off every style.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from lmzoo import humanize

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPED_COLUMNS = 10_000  # width where stdout is a pipe or a file: no line is wrapped
READING_COLUMNS = 100  # texts are wrapped at most here, also in a wide terminal or a file
_BETWEEN = 3  # spaces between two columns
_WRAPPED_COLUMNS = 24  # smallest width of a column whose text may wrap


def no_color() -> bool:
    """True if the environment asks for output without color, see no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def columns() -> int:
    """Returns the width of stdout in characters: of the terminal (or COLUMNS), or no limit in a pipe or a file."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return PIPED_COLUMNS


def reading_columns() -> int:
    """Returns the width for texts and drawings: the terminal's, but never so wide that lines are hard to read."""
    return min(columns(), READING_COLUMNS)


def shown(text: str) -> str:
    """Returns a text for stdout: as it is for a pipe or a file, and without characters that a terminal would obey."""
    return humanize.plain(text, keep="\n\t\u200c\u200d") if sys.stdout.isatty() else text


def reflow(text: str, indent: int = 0) -> str:
    """Wraps the paragraphs of a text to the terminal; later lines of one are indented. No change in a pipe."""
    if columns() == PIPED_COLUMNS:
        return text
    wrapper = textwrap.TextWrapper(
        reading_columns(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n\n".join(wrapper.fill(paragraph) for paragraph in text.split("\n\n"))


def results_console(width: int | None = None) -> Console:
    """Makes the console for results on stdout, `width` columns wide (default: `columns`).

    It escapes what a terminal would obey in the texts that are printed, as `table` does in its cells.
    """
    return _console(sys.stdout, width or columns())


def progress_console() -> Console:
    """Makes the console for progress and notes: stderr, or stdout in a notebook, which shows stderr as an error."""
    file = sys.stdout if in_notebook() else sys.stderr
    # FORCE_COLOR, which kernels set, draws no bar in a log. Where the cursor cannot be moved, as in the shell of Emacs,
    # rich would draw the bar once, at the end.
    draws = file.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return _console(file, None, force_terminal=draws)


def in_notebook() -> bool:
    """True in the kernel of a notebook, whose stdout is no terminal."""
    return "ipykernel.zmqshell" in sys.modules  # clients of a kernel import other modules of it


def _console(file: TextIO, width: int | None, *, force_terminal: bool | None = None) -> Console:
    from rich.console import Console

    class Escaping(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            plain = (humanize.plain(each, keep="\n") if isinstance(each, str) else each for each in objects)
            super().print(*plain, **options)

        def on_broken_pipe(self) -> None:  # rich would end the process with code 1
            raise

    # As a notebook's console, rich would need ipywidgets and show nothing without it.
    return Escaping(
        file=file,
        width=width,
        color_system=None if no_color() else "auto",
        force_terminal=force_terminal,
        force_jupyter=False,
        highlight=False,
    )


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    left: Sequence[str] = (),
    wrapped: str = "",
    drop: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> Text:
    """Makes a table without a box, at most `width` columns wide if its figures fit there.

    Columns named in `left` are texts, the others are right-aligned. The column `wrapped` may be wrapped, headings too,
    but no other cell. If that is not enough, the columns named in `drop` are left out, the first one first, and a last
    line says so. `styles` holds one style for each row. Control characters in cells are escaped.

    A table of rich would cut cells to fit a narrow terminal, whatever its columns ask for.
    """
    from rich.text import Text

    rows = [[humanize.plain(cell) for cell in row] for row in rows]
    least = {
        heading: max([_longest_word(heading), *(_least(row[i], heading == wrapped) for row in rows)])
        for i, heading in enumerate(headings)
    }
    most = {heading: max(map(_width, [heading, *(row[i] for row in rows)])) for i, heading in enumerate(headings)}
    dropped: list[str] = []
    while len(dropped) < len(drop) and _total(least, dropped) > width:
        dropped.append(drop[len(dropped)])
    widths: dict[str, int] = {}
    free = max(0, width - _total(least, dropped))
    for heading in sorted((name for name in headings if name not in dropped), key=lambda name: name == wrapped):
        widths[heading] = min(most[heading], least[heading] + free)
        free -= widths[heading] - least[heading]
    kept = [(i, heading) for i, heading in enumerate(headings) if heading in widths]

    def lines(cells: Sequence[str], style: str, *, bottom: bool = False) -> Text:
        """Returns the lines of a row; short cells stand at its top, or at its `bottom`."""
        parts = [_wrapped(cells[i], widths[heading]) for i, heading in kept]
        height = max(map(len, parts))
        columns = []
        for part, (_, heading) in zip(parts, kept, strict=True):
            rest = [""] * (height - len(part))
            padded = (
                (line, " " * (widths[heading] - _width(line))) for line in (rest + part if bottom else part + rest)
            )
            columns.append([line + pad if heading in left else pad + line for line, pad in padded])
        return Text("\n".join((" " * _BETWEEN).join(line).rstrip() for line in zip(*columns, strict=True)), style)

    rule = "─" * (sum(widths.values()) + _BETWEEN * (len(kept) - 1))
    made = [lines(headings, "bold", bottom=True), Text(rule)]
    made += [lines(row, style) for row, style in zip(rows, styles or [""] * len(rows), strict=True)]
    if dropped:
        note = f"left out, for lack of columns: {', '.join(dropped)}"
        made.append(Text("\n".join(textwrap.wrap(note, width)), "dim"))
    return Text("\n").join(made)


def _total(widths: Mapping[str, int], dropped: Sequence[str]) -> int:
    """Returns the width of a table without the `dropped` columns."""
    kept = [width for heading, width in widths.items() if heading not in dropped]
    return sum(kept) + _BETWEEN * (len(kept) - 1)


def _least(cell: str, wraps: bool) -> int:
    """Returns the smallest width of a cell: of a text that may wrap, a readable one."""
    return min(_width(cell), _WRAPPED_COLUMNS) if wraps else _width(cell)


def _longest_word(text: str) -> int:
    return max(map(_width, text.split()), default=0)


def _width(text: str) -> int:
    """Returns the width of a text in columns: a Chinese character has two."""
    from rich.cells import cell_len

    return cell_len(text)


def _wrapped(text: str, width: int) -> list[str]:
    """Returns the lines of a text in a column, at least one."""
    from rich.cells import chop_cells

    if _width(text) <= width:
        return [text]
    if _width(text) == len(text):
        return textwrap.wrap(text, width)
    return chop_cells(text, width)
