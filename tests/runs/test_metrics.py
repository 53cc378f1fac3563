"""Tests metrics.jsonl: the lines that are written, kept on resuming, and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.runs.metrics import METRICS_FILE, MetricsWriter, last_step, read_metrics
from lmzoo.train.events import EndEvent, EvalEvent, StepEvent


def test_metrics_writer_drops_lines_after_the_resumed_step(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 1)
    for step in (1, 2, 3):
        writer(StepEvent(step, 1.0 / step, 0.1, 1.0, step * 10, 0.5, 20.0))
    writer(EvalEvent(3, 0.25, 0.5, 30, 0.5))
    writer(EndEvent())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')  # cut short by a kill
    writer = MetricsWriter(tmp_path, 1, after_step=2)
    writer(StepEvent(3, 0.125, 0.1, 1.0, 30, 0.5, 20.0))
    writer(EndEvent())
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.125)]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["split"] == "train"


def test_metrics_writer_logs_every_nth_step_and_every_evaluation(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 2)
    for step in (1, 2, 3, 4):
        writer(StepEvent(step, 1.0, 0.1, 1.0, step * 10, 0.5, 20.0))
        writer(EvalEvent(step, 2.0, 3.0, step * 10, 0.5))
    writer(EndEvent())
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4]
    assert [line["bits_per_byte"] for line in lines if line["split"] == "val"] == [3.0] * 4


def test_metrics_writer_counts_unreadable_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "split": "train", "loss": 1.0, "tokens": 9}\n[]\n{"step": "2"}\n'
    )
    writer = MetricsWriter(tmp_path, 1, after_step=1)
    writer(EndEvent())
    assert writer.unreadable == 2
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]


def test_read_metrics_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: there is no such file"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "line",
    ['{"step": 1, "split": "val", "loss": 1.0}', '{"step": -1, "split": "val", "loss": 1.0, "tokens": 1}',
     '{"step": 1, "split": "val", "loss": "1", "tokens": 1}', "[" * 9999, "1" * 5000, "3", "\\xff"],
)  # fmt: skip
def test_read_metrics_leaves_out_lines_that_lack_a_value(tmp_path: Path, line: str) -> None:
    good = '{"step": 1, "split": "val", "loss": 1.0, "tokens": 3}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n")
    assert len(read_metrics(tmp_path)) == 1


def test_read_metrics_takes_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match="must be a regular file"):
        read_metrics(tmp_path)


def test_metrics_writer_logs_activations_with_an_evaluation(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 1)
    activations = {"residual_rms": [0.5, None], "grad_norms": {"matrix": 0.25}}
    writer(EvalEvent(1, 2.0, 3.0, 10, 0.5, activations))
    writer(EvalEvent(2, 2.0, 3.0, 20, 0.5))
    writer(EndEvent())
    assert read_metrics(tmp_path)[0]["activations"] == activations
    assert "activations" not in read_metrics(tmp_path)[1]


def test_last_step_reads_the_end_of_the_file(tmp_path: Path) -> None:
    assert last_step(tmp_path) is None
    line = {"split": "train", "loss": 2.5, "tokens": 1}
    lines = [json.dumps({"step": step, **line}) for step in range(1, 500)]
    evaluated = json.dumps({"step": 499, **line, "split": "val", "loss": 1.0})
    (tmp_path / METRICS_FILE).write_text("\n".join([*lines, evaluated, '{"step": 500, "split": "tr']))
    assert last_step(tmp_path) == (499, 2.5)
    (tmp_path / METRICS_FILE).write_text("")
    assert last_step(tmp_path) is None
