"""Starts several trainers in one folder at once: exactly one trains, and the lock of a killed one is free."""

from __future__ import annotations

import os
import shutil
import signal

from tests.stress import children
from tests.stress.bench import Bench, Tally, finish_and_compare

SETTINGS = {"steps": 2000, "checkpoint_every": 5, "eval_every": 2000}
SHORT = {"steps": 12, "checkpoint_every": 5}
TRAINERS = 4


def lock(bench: Bench, count: int) -> Tally:
    """Start four trainers at the same moment, and kill the one that trains, `count` times."""
    tally = Tally()
    spec, run = bench.spec("lstm", **SETTINGS), bench.place()
    for number in range(count):
        where = f"round {number + 1}"
        gate, opener = os.pipe()

        def wait(gate: int = gate, opener: int = opener) -> None:
            os.close(opener)
            os.read(gate, 1)

        trainers = [bench.start(spec, run, before=wait) for _ in range(TRAINERS)]
        os.close(gate)
        os.close(opener)  # closing the pipe starts all trainers
        running = []
        for trainer in trainers:
            if trainer.wait_for("step"):
                running.append(trainer)
            else:
                trainer.finish()
                line = trainer.error
                fine = line.startswith("ConfigError: out=") and (
                    "is being trained in by another process" in line or "another process has just made" in line
                )
                tally.check(
                    fine and children.LINE_BREAK not in line, f"{where}: another ended with {trainer.code}: {line}"
                )
                tally.done["refused"] += 1
        tally.check(len(running) == 1, f"{where}: {len(running)} of {TRAINERS} trained")
        for trainer in running:
            trainer.signal(signal.SIGKILL)
            trainer.finish()
            tally.done["trained alone, and was killed"] += 1
        bench.progress(f"lock: {number + 1} of {count}")
        if number % 3 == 2:
            shutil.rmtree(run)  # so that some rounds begin without the folder
    short, last = bench.spec("lstm", **SHORT), bench.place()
    child = bench.start(short, last)
    child.wait_for("step")
    child.signal(signal.SIGKILL)
    child.finish()
    finish_and_compare(bench, short, last, tally, "after a dead trainer")
    return tally
