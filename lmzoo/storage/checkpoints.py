"""Finds the checkpoints in a run directory: their paths, the committed ones, the newest valid one."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from lmzoo.errors import CheckpointError
from lmzoo.storage import reading
from lmzoo.storage.names import replaced

FOLDER = "checkpoints"
_STEP = re.compile(r"step-(\d{8,})|\.step-(\d{8,})\.replaced")


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint of a run is damaged; an earlier one is used."""


def find(path: str | Path) -> reading.Folder:
    """Open and check the folder `path`, or the newest valid checkpoint of a run. Raises `CheckpointError`."""
    run = Path(path)
    if not os.path.isdir(run / FOLDER):
        if not os.path.lexists(run) and not os.path.lexists(replaced(run)):
            raise CheckpointError(f"{run}: there is no such run or checkpoint")
        if os.path.lexists(run) and not os.path.lexists(run / reading.MANIFEST):
            raise CheckpointError(f"{run}: holds no model: it has neither {FOLDER}/ nor {reading.MANIFEST}")
        return reading.open_folder(run)
    damage: CheckpointError | None = None
    for _, folder in saved(run):
        try:
            found = reading.open_folder(folder)
        except CheckpointError as error:
            damage = damage or error
            continue
        if damage:
            warnings.warn(f"{damage}; {folder.name} is used instead", DamagedCheckpointWarning, stacklevel=2)
        return found
    raise damage or CheckpointError(f"{run}: has no checkpoint yet")


def saved(run: Path) -> list[tuple[int, Path]]:
    """Returns (step, folder) of every committed checkpoint of a run, newest first, without checking their content.

    Raises `CheckpointError` when `checkpoints` is a link, because files outside the run could be replaced or removed.
    """
    folder = run / FOLDER
    if folder.is_symlink():
        raise CheckpointError(f"{folder}: must be a folder, not a link")
    found = folder.iterdir() if folder.is_dir() else ()
    named = [_STEP.fullmatch(path.name) for path in found if path.is_dir() and not path.is_symlink()]
    digits = {match[1] or match[2] for match in named if match}  # a checkpoint that is being replaced
    steps = sorted((int(text) for text in digits if text == f"{int(text):08d}"), reverse=True)
    return [(step, path_of(run, step)) for step in steps]


def step_of(path: Path) -> int | None:
    """Returns the step of the checkpoint `path`, None for a folder that is no checkpoint of a run."""
    match = _STEP.fullmatch(path.name)
    return int(match[1] or match[2]) if match else None


def path_of(run: Path, step: int) -> Path:
    """Returns the path of the checkpoint of a step."""
    return run / FOLDER / f"step-{step:08d}"
