"""Tests the table of runs that are made at once, and its lines where there is no terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from lmzoo.compare import live
from lmzoo.compare.live import ComparisonProgress, states_table, sums
from lmzoo.train.events import CellsEvent, CellState, EndEvent, Event, NoteEvent

CELLS = [
    CellState("gpt2.tiny,learning_rate=0.01", "done", 200, 200, 1.25),
    CellState("gpt2.tiny,learning_rate=0.02", "diverged", 200, 200, None),
    CellState("mamba.tiny", "running", 1240, 2000, 1.8),
    CellState("mamba.tiny,seed=1338", "waiting", 0, 2000),
]
EVENT = CellsEvent(CELLS, 200.0)


def written_by(*events: Event, terminal: bool, width: int = 80) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width, height=30, force_terminal=terminal, color_system=None)
    with ComparisonProgress(console) as progress:
        for event in events:
            progress(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())


@pytest.mark.parametrize("width", [60, 80, 140])
def test_states_table_shows_every_run(width: int) -> None:
    lines = states_table(EVENT, width, 20).plain.splitlines()
    assert all(len(line) <= width for line in lines)
    assert re.fullmatch(r"gpt2\.tiny,learning_rate=0\.01 +done +1\.250", lines[2]) or width == 60
    assert re.search(r"diverged +–", lines[3])
    assert re.search(r"^mamba\.tiny +running +1,240 of 2,000 +1\.800", lines[4])
    assert re.search(r"^mamba\.tiny,seed=1338 +waiting$", lines[5])
    assert lines[-1] == "2 of 4 runs done, 3 min 20 s left"


@pytest.mark.parametrize("name", ["国风语言模型" * 9, "my_laboratory." + "long_name_" * 9])
def test_states_table_cuts_a_long_name_in_its_middle(name: str) -> None:
    cells = [CellState(f"{name},seed=1338", "running", 1234, 20_000, 1.234)]
    lines = states_table(CellsEvent(cells, 123.0), 80, 10).plain.splitlines()
    assert max(map(cell_len, lines)) <= 80
    (line,) = (line for line in lines if "…" in line)
    assert line.startswith(name[:10])
    assert ",seed=1338" in line
    assert "1,234 of 20,000" in line


def test_states_table_counts_stopped_runs_as_done() -> None:
    stopped = CellsEvent([CellState("gpt2.tiny,learning_rate=0.04", "stopped", 200, 200, 2.5), *CELLS])
    lines = states_table(stopped, 80, 20).plain.splitlines()
    assert re.search(r"learning_rate=0\.04 +stopped +2\.500", lines[2])
    assert lines[-1] == "3 of 5 runs done"
    assert "1 stopped" in states_table(stopped, 80, 4).plain


def test_states_table_counts_runs_that_do_not_fit() -> None:
    many = CellsEvent([*CELLS, *(CellState(f"m{n}", "done", 9, 9, 1.0) for n in range(30))])
    text = states_table(many, 80, 5).plain
    assert "31 done" in text
    assert "1 waiting" in states_table(many, 80, 3).plain
    assert "mamba.tiny " in text, "what runs is always shown"
    assert "diverged" in text
    assert len(text.splitlines()) <= 5 + 3
    assert text.endswith("32 of 34 runs done")


def test_comparison_progress_draws_the_table_on_a_terminal() -> None:
    text = written_by(NoteEvent("4 runs, 2 at once: about 4 min"), EVENT, EndEvent(), terminal=True)
    assert "4 runs, 2 at once" in text
    assert "1,240 of 2,000" in text


def test_comparison_progress_writes_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written_by(EVENT, EVENT, EndEvent(), terminal=False)
    assert text.splitlines() == [
        "gpt2.tiny,learning_rate=0.01: done, validation loss 1.250",
        "gpt2.tiny,learning_rate=0.02: diverged",
        "mamba.tiny: running",
    ]
    monkeypatch.setattr(live, "LINE_SECONDS", 0.0)
    last = written_by(EVENT, terminal=False).splitlines()[-1]
    assert last == "2 of 4 runs done, 3 min 20 s left; mamba.tiny 1,240 of 2,000"
    assert sums(EVENT) in last
