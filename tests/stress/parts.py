"""The parts of the stress run, in the order in which it takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .bench import Bench, Tally
from .calls import calls
from .changes import changes
from .damage import damage
from .disk import disk
from .diverge import diverge
from .hostile import hostile
from .kills import kills
from .lock import lock
from .memory import memory
from .signals import signals
from .steps import steps


@dataclass(frozen=True)
class Part:
    """What a part shows, what its count counts, and how much of it is run in full and in short."""

    work: Callable[[Bench, int], Tally]
    shows: str
    unit: str
    full: int
    quick: int


PARTS = {
    "steps": Part(steps, "interrupted in any step, a run ends as if it had not been", "only every Nth step", 1, 23),
    "kills": Part(kills, "SIGKILL at any time, half of them in a save", "kills for each of three backbones", 200, 6),
    "calls": Part(calls, "every call that changes the disk fails, or is the last", "only every Nth call", 1, 37),
    "disk": Part(disk, "disk full, file too large, input/output error", "cases of each", 30, 4),
    "signals": Part(signals, "SIGTERM and SIGINT end a run within a step and a save", "signals", 100, 6),
    "damage": Part(damage, "bits flipped and files cut off in checkpoints", "cases", 2000, 60),
    "diverge": Part(diverge, "numbers that are not finite", "cases, 180 at most", 180, 8),
    "changes": Part(changes, "another setting, tokenizer or text", "backbones, 3 at most", 3, 1),
    "lock": Part(lock, "four trainers in one folder, and dead ones", "rounds", 50, 3),
    "memory": Part(memory, "too little memory", "limits", 40, 3),
    "hostile": Part(hostile, "runs and checkpoints that mean harm", "only every Nth case", 1, 6),
}
