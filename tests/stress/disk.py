"""Full disk, file too large, input/output errors: one line, the last valid checkpoint stays, no leftover files."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lmzoo.train.events import Event, SavingEvent
from tests.stress import children, faults, runs
from tests.stress.bench import Bench, Tally, finish_and_compare, newest_step
from tests.stress.children import Child

SETTINGS = {"steps": 6, "checkpoint_every": 2, "eval_every": 3}
FULL, LARGE, FAILING = "No space left on device", "File too large", "Input/output error"


def disk(bench: Bench, count: int) -> Tally:
    """Cause each of the three errors `count` times in the save of step 4, with increasing space until it succeeds."""
    tally = Tally()
    for number in range(count):
        _too_large(bench, number, count, tally)
        _failing(bench, number, count, tally)
        bench.progress(f"disk: {number + 1} of {count}")
    with small_disk(bench.folder / "disk") as where:
        if where is None:
            tally.notes.append("no full disk was tried: mounting one needs root")
        for number in range(count if where else 0):
            _full(bench, where or bench.folder, number, count, tally)
            bench.progress(f"full disk: {number + 1} of {count}")
    return tally


@contextmanager
def small_disk(folder: Path) -> Generator[Path | None]:
    """Mount a disk of 4 MB; None if it cannot be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _full(bench: Bench, disk: Path, number: int, count: int, tally: Tally) -> None:
    spec, run, filler = bench.spec("gpt2", **SETTINGS), disk / "run", disk / "filler"

    def fill(event: Event) -> None:
        if isinstance(event, SavingEvent) and event.step == 4:
            room = 4096 * (number * 40 // count)  # such a checkpoint takes about 130 kB
            free = os.statvfs(disk).f_bavail * 4096
            filler.write_bytes(b"x" * max(0, free - room))

    child = bench.train(spec, run, also=[fill])
    _judge(child, run, FULL, tally, f"disk full {number}")
    filler.unlink()
    finish_and_compare(bench, spec, run, tally, f"disk full {number}")
    shutil.rmtree(run)


def _too_large(bench: Bench, number: int, count: int, tally: Tally) -> None:
    spec, run = bench.spec("gpt2", **SETTINGS), bench.place()

    def limit(event: Event) -> None:
        if isinstance(event, SavingEvent) and event.step == 4:
            size = 60_000 * number // count
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    child = bench.train(spec, run, also=[limit])  # Python ignores SIGXFSZ, so writing raises an error
    _judge(child, run, LARGE, tally, f"file too large {number}")
    finish_and_compare(bench, spec, run, tally, f"file too large {number}")


def _failing(bench: Bench, number: int, count: int, tally: Tally) -> None:
    spec, run = bench.spec("gpt2", **SETTINGS), bench.place()

    def fail(event: Event) -> None:
        if isinstance(event, SavingEvent) and event.step == 4:
            faults.fail_at(1 + 30 * number // count, "error", ever_after=True, calls=("write", "fsync", "rename"))

    child = bench.train(spec, run, also=[fail])
    _judge(child, run, FAILING, tally, f"input/output error {number}")
    finish_and_compare(bench, spec, run, tally, f"input/output error {number}")


def _judge(child: Child, run: Path, reason: str, tally: Tally, where: str) -> None:
    """Check that the run ended with one line and without leftover files, or had enough space."""
    step = newest_step(run, tally, where)
    if child.code == children.DONE:
        tally.done[f"{reason}: enough space"] += 1
        return
    line = child.error
    fine = child.code == children.REFUSED and line.startswith("CheckpointError: ") and line.endswith(reason)
    tally.check(fine and children.LINE_BREAK not in line, f"{where}: ended with {child.code}: {line}")
    tally.check(step in (2, 4), f"{where}: the newest checkpoint is of step {step}")
    tally.check(not runs.litter(run), f"{where}: litter {runs.litter(run)}")
    tally.done[reason] += 1
