"""Which checkpoints of a run stay: the newest whole ones, and the best."""

from __future__ import annotations

from pathlib import Path

from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, checkpoints


def prune(run: Path, keep: int, *, newest: int, best: int | None) -> None:
    """Remove all but the newest `keep` whole checkpoints and that of the step `best`.

    To be called after the checkpoint of the step `newest` is committed. A damaged one does not count, for nothing could
    go on from it; it stays where it is until `keep` whole ones are newer. Raises `CheckpointError` when the disk
    refuses.
    """
    whole = 0
    for step, path in checkpoints.saved(run):
        if whole < keep:
            whole += step == newest or _is_whole(path)
        elif step != best:
            atomic.remove_folder(path)


def _is_whole(path: Path) -> bool:
    try:
        atomic.open_folder(path)
    except CheckpointError:
        return False
    return True
