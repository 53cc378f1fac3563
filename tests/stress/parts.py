"""The parts of the stress run, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.stress.bench import Bench, Tally
from tests.stress.calls import calls
from tests.stress.changes import changes
from tests.stress.comparisons import comparisons
from tests.stress.damage import damage
from tests.stress.disk import disk
from tests.stress.diverge import diverge
from tests.stress.hostile import hostile
from tests.stress.kills import kills
from tests.stress.lock import lock
from tests.stress.memory import memory
from tests.stress.signals import signals
from tests.stress.steps import steps


@dataclass(frozen=True)
class Part:
    """A part: what it shows, the unit of its count, and the counts of a full and a quick run."""

    work: Callable[[Bench, int], Tally]
    shows: str
    unit: str
    full: int
    quick: int


PARTS = {
    "steps": Part(steps, "a run interrupted in any step ends bitwise the same", "only every Nth step", 1, 23),
    "kills": Part(kills, "SIGKILL at any time, half of them in a save", "kills for each of three backbones", 200, 6),
    "calls": Part(calls, "every call that changes the disk fails, or kills the run", "only every Nth call", 1, 37),
    "disk": Part(disk, "disk full, file too large, input/output error", "cases of each", 30, 4),
    "signals": Part(signals, "SIGTERM and SIGINT end a run within a step and a save", "signals", 100, 6),
    "damage": Part(damage, "bits flipped and files truncated in checkpoints", "cases", 2000, 60),
    "diverge": Part(diverge, "numbers that are not finite", "cases, 180 at most", 180, 8),
    "changes": Part(changes, "another setting, tokenizer or text", "backbones, 3 at most", 3, 1),
    "lock": Part(lock, "four trainers in one folder, and killed ones", "rounds", 50, 3),
    "memory": Part(memory, "too little memory", "limits", 40, 3),
    "comparisons": Part(comparisons, "a comparison killed at any time ends with the same results", "kills", 20, 1),
    "hostile": Part(hostile, "malicious runs and checkpoints", "only every Nth case", 1, 6),
}
