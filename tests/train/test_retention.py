"""Which checkpoints stay: the newest whole ones and the best, also when some were damaged and a run was rolled back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import atomic, checkpoints
from lmzoo.train import retention
from lmzoo.train.checkpoint import TrainingState, newest_valid, read_state, remember_best
from lmzoo.train.events import CheckpointEvent, Event, NoteEvent

MakeSpec = Callable[..., RunSpec]
# A bigram that learns too fast gets worse from step 4 on: that checkpoint is the best.
RISING = {"learning_rate": 1.0, "schedule": "constant", "warmup_steps": 0, "checkpoint_every": 2, "eval_every": 2}


def steps(run: Path) -> list[int]:
    return [step for step, _ in checkpoints.saved(run)]


def damage(run: Path, step: int) -> None:
    file = checkpoints.path_of(run, step) / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def five(tmp_path: Path, small_spec: MakeSpec) -> Path:
    """A run with the checkpoints 4 to 12, whose best has just been lost with step 4: 6, 8, 10, 12."""
    train_run(small_spec("bigram", **RISING, keep_checkpoints=5), tmp_path / "five")
    assert steps(tmp_path / "five") == [12, 10, 8, 6, 4]
    atomic.remove_folder(checkpoints.path_of(tmp_path / "five", 4))
    return tmp_path / "five"


def test_the_newest_and_the_best_stay(five: Path) -> None:
    retention.prune(five, 2, newest=12, best=6)
    assert steps(five) == [12, 10, 6]


def test_a_damaged_one_does_not_count(five: Path) -> None:
    damage(five, 10)
    retention.prune(five, 2, newest=12, best=None)
    assert steps(five) == [12, 10, 8], "two whole ones, and what lies between them"
    retention.prune(five, 1, newest=12, best=None)
    assert steps(five) == [12]


def test_a_resumed_run_keeps_as_many_whole_ones(tmp_path: Path, small_spec: MakeSpec) -> None:
    """The newest is damaged, and one that is older too: after the next save there are still two to go back to."""
    spec = small_spec(keep_checkpoints=2, checkpoint_every=2, eval_every=12)
    run = stopped_at(8, spec, tmp_path / "run")
    assert steps(run) == [8, 6]
    damage(run, 8)
    found: list[list[int]] = []
    train_run(
        spec,
        run,
        resume=True,
        listeners=[lambda e: found.append(steps(run)) if isinstance(e, CheckpointEvent) else None],
    )
    assert found[0] == [8, 6]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "damaged-step-00000008",
        "step-00000010",
        "step-00000012",
    ]


def stopped_at(step: int, spec: RunSpec, run: Path) -> Path:
    """A run that was stopped when `step` had been saved."""

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointEvent) and event.step == step:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_run(spec, run, listeners=[stop])
    return run


def test_older_damaged_ones_are_set_aside_too(five: Path) -> None:
    for step in (12, 8):
        damage(five, step)
    folder, notes = newest_valid(five)
    assert folder is not None
    assert folder.path == checkpoints.path_of(five, 10)
    assert steps(five) == [10, 6]
    assert [note.partition("set aside as ")[2] for note in notes] == ["damaged-step-00000012", "damaged-step-00000008"]


def test_after_a_rollback_the_best_is_one_that_is_there(five: Path) -> None:
    """The best of then was removed, or is damaged: the best is the best of those that are left."""
    losses = {line["step"]: line["loss"] for line in read_metrics(five) if line["split"] == "val"}
    second, third = sorted((6, 8, 10, 12), key=losses.__getitem__)[:2]
    assert {second, third}.isdisjoint({12}), "else the test would not see a rollback"
    folder, _ = newest_valid(five)
    assert folder is not None
    state = read_state(folder)
    assert state.best_step == 4, "which is no longer there"
    remember_best(five, state)
    assert (state.best_step, state.best_loss) == (second, losses[second])
    damage(five, second)
    newest_valid(five)
    remember_best(five, state)
    assert (state.best_step, state.best_loss) == (third, losses[third])


def test_the_best_outlives_a_rollback(tmp_path: Path, small_spec: MakeSpec) -> None:
    """With the last checkpoints damaged, the run goes on from an older one and ends with the same as ever."""
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
    assert steps(run) == steps(tmp_path / "whole") == [12, 10, 8, 4]
    best = [
        read_state(atomic.open_folder(checkpoints.path_of(path, 12))).best_step for path in (run, tmp_path / "whole")
    ]
    assert best == [4, 4]


def test_a_folder_that_says_another_step_is_not_gone_on_with(five: Path) -> None:
    """A copy of an old checkpoint under a newer name would otherwise win."""
    checkpoints.path_of(five, 6).rename(checkpoints.path_of(five, 99))
    folder, notes = newest_valid(five)
    assert folder is not None
    assert folder.path.name == "step-00000012"
    assert "step=6 must be that of the folder's name" in notes[0]


def test_a_checkpoint_that_is_being_replaced_is_still_there(five: Path) -> None:
    """Killed between the two renames of a replacement: readers find the old one, and the next writer puts it back."""
    path = checkpoints.path_of(five, 12)
    path.rename(atomic.replaced(path))
    assert steps(five)[0] == 12
    assert checkpoints.find(five).json("training.json")["step"] == 12
    atomic.clean(five / "checkpoints")
    assert path.is_dir()


def test_the_run_of_a_disk_that_refuses_to_remove(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(CheckpointError, match=r"step-00000010: cannot be removed: Operation not permitted$"):
        retention.prune(five, 1, newest=12, best=None)
    damage(five, 12)
    with pytest.raises(CheckpointError, match=r"step-00000012: cannot be set aside: Operation not permitted$"):
        newest_valid(five)


def test_a_state_without_an_evaluation_has_no_best(five: Path) -> None:
    state = TrainingState(step=12)
    remember_best(five, state)
    assert state.best_step is None
