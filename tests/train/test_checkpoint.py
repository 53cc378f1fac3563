"""Tests checkpoints: the newest valid one, the best one, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

from lmzoo.runs.metrics import read_metrics
from lmzoo.storage import checkpoints
from lmzoo.train.checkpoint import TrainingState, newest_valid, read_state, remember_best
from tests.helpers import damage, saved_steps


def test_newest_valid_renames_all_damaged_checkpoints(without_best: Path) -> None:
    for step in (12, 8):
        damage(without_best, step)
    folder, notes = newest_valid(without_best)
    assert folder is not None
    assert folder.path == checkpoints.path_of(without_best, 10)
    assert saved_steps(without_best) == [10, 6]
    assert [note.partition("set aside as ")[2] for note in notes] == ["damaged-step-00000012", "damaged-step-00000008"]


def test_remember_best_chooses_among_existing_checkpoints(without_best: Path) -> None:
    """The recorded best checkpoint was removed or is damaged: the best of the remaining ones replaces it."""
    losses = {line["step"]: line["loss"] for line in read_metrics(without_best) if line["split"] == "val"}
    second, third = sorted((6, 8, 10, 12), key=losses.__getitem__)[:2]
    assert {second, third}.isdisjoint({12}), "else the test would not see a rollback"
    folder, _ = newest_valid(without_best)
    assert folder is not None
    state = read_state(folder)
    assert state.best_step == 4, "which is no longer there"
    remember_best(without_best, state)
    assert (state.best_step, state.best_loss) == (second, losses[second])
    damage(without_best, second)
    newest_valid(without_best)
    remember_best(without_best, state)
    assert (state.best_step, state.best_loss) == (third, losses[third])


def test_newest_valid_rejects_a_folder_named_after_another_step(without_best: Path) -> None:
    """Otherwise a copy of an old checkpoint under a newer name would be taken for the newest."""
    checkpoints.path_of(without_best, 6).rename(checkpoints.path_of(without_best, 99))
    folder, notes = newest_valid(without_best)
    assert folder is not None
    assert folder.path.name == "step-00000012"
    assert "step=6 must be the step in the folder's name" in notes[0]


def test_remember_best_of_a_state_without_an_evaluation(without_best: Path) -> None:
    state = TrainingState(step=12)
    remember_best(without_best, state)
    assert state.best_step is None
