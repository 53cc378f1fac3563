"""Tests which checkpoints are kept: the newest valid ones and the best, also after damage and a rollback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import atomic, checkpoints, reading
from lmzoo.storage.names import replaced
from lmzoo.train import retention
from lmzoo.train.checkpoint import newest_valid, read_state
from lmzoo.train.events import CheckpointEvent, Event, NoteEvent
from tests.helpers import RISING, damage, saved_steps

MakeSpec = Callable[..., RunSpec]


def test_prune_keeps_the_newest_and_the_best(without_best: Path) -> None:
    retention.prune(without_best, 2, newest=12, best=6)
    assert saved_steps(without_best) == [12, 10, 6]


def test_prune_does_not_count_damaged_checkpoints(without_best: Path) -> None:
    damage(without_best, 10)
    retention.prune(without_best, 2, newest=12, best=None)
    assert saved_steps(without_best) == [12, 10, 8], "two valid ones, and the damaged one between them"
    retention.prune(without_best, 1, newest=12, best=None)
    assert saved_steps(without_best) == [12]


def test_prune_keeps_as_many_valid_checkpoints_in_a_resumed_run(tmp_path: Path, small_spec: MakeSpec) -> None:
    """The newest checkpoint is damaged, and so is an older one: after the next save, two valid ones remain."""
    spec = small_spec(keep_checkpoints=2, checkpoint_every=2, eval_every=12)
    run = stopped_at(8, spec, tmp_path / "run")
    assert saved_steps(run) == [8, 6]
    damage(run, 8)
    found: list[list[int]] = []
    train_run(
        spec,
        run,
        resume=True,
        listeners=[lambda e: found.append(saved_steps(run)) if isinstance(e, CheckpointEvent) else None],
    )
    assert found[0] == [8, 6]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "damaged-step-00000008",
        "step-00000010",
        "step-00000012",
    ]


def stopped_at(step: int, spec: RunSpec, run: Path) -> Path:
    """Train a run and stop it when `step` has been saved."""

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointEvent) and event.step == step:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_run(spec, run, listeners=[stop])
    return run


def test_prune_keeps_the_best_after_a_rollback(tmp_path: Path, small_spec: MakeSpec) -> None:
    """With its last checkpoints damaged, the run continues from an older one and ends like an undisturbed run."""
    spec = small_spec("bigram", **RISING, keep_checkpoints=3)
    train_run(spec, tmp_path / "whole")
    run = stopped_at(8, spec, tmp_path / "run")
    for step in (8, 6):
        damage(run, step)
    notes: list[str] = []
    train_run(
        spec, run, resume=True, listeners=[lambda e: notes.append(e.message) if isinstance(e, NoteEvent) else None]
    )
    assert len(notes) == 2
    assert all(note.endswith("training continues from step 4") for note in notes)
    assert saved_steps(run) == saved_steps(tmp_path / "whole") == [12, 10, 8, 4]
    best = [
        read_state(reading.open_folder(checkpoints.path_of(path, 12))).best_step for path in (run, tmp_path / "whole")
    ]
    assert best == [4, 4]


def test_find_reads_a_checkpoint_that_is_being_replaced(without_best: Path) -> None:
    """After a kill between the two renames of a replacement, readers find the old one; the next writer restores it."""
    path = checkpoints.path_of(without_best, 12)
    path.rename(replaced(path))
    assert saved_steps(without_best)[0] == 12
    assert checkpoints.find(without_best).json("training.json")["step"] == 12
    atomic.clean(without_best / "checkpoints")
    assert path.is_dir()


def test_prune_and_newest_valid_report_errors_of_the_disk(without_best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(CheckpointError, match=r"step-00000010: cannot be removed: Operation not permitted$"):
        retention.prune(without_best, 1, newest=12, best=None)
    damage(without_best, 12)
    with pytest.raises(CheckpointError, match=r"step-00000012: cannot be set aside: Operation not permitted$"):
        newest_valid(without_best)
