"""Removes old checkpoints of a run; the newest valid ones and the best one stay."""

from __future__ import annotations

from pathlib import Path

from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, checkpoints, reading


def prune(run: Path, keep: int, *, newest: int, best: int | None) -> None:
    """Remove all but the newest `keep` valid checkpoints and the checkpoint of the step `best`.

    Must be called after the checkpoint of the step `newest` is committed. A damaged checkpoint does not count as one of
    `keep`, since no run can resume from it; it is removed once `keep` valid ones are newer. Raises `CheckpointError`
    for an error of the disk.
    """
    whole = 0
    for step, path in checkpoints.saved(run):
        if whole < keep:
            whole += step == newest or _is_whole(path)
        elif step != best:
            atomic.remove_folder(path)


def _is_whole(path: Path) -> bool:
    try:
        reading.open_folder(path)
    except CheckpointError:
        return False
    return True
