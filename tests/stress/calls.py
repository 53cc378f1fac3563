"""Lets every write, fsync, rename and unlink of a run fail once, and kills the run there: a valid state must load."""

from __future__ import annotations

import errno
import shutil
from collections import Counter

from tests.stress import children, faults
from tests.stress.bench import Bench, Tally, finish_and_compare, newest_step

SETTINGS = {"steps": 3, "checkpoint_every": 1, "eval_every": 2, "keep_checkpoints": 1}


def calls(bench: Bench, count: int) -> Tally:
    """Let every `count`th call of a run with three saves fail, and kill the run there."""
    tally = Tally()
    spec = bench.spec("bigram", **SETTINGS)
    bench.whole(spec)
    made = _count(bench)
    tally.notes.append(
        f"a run makes {sum(made.values())} calls: " + ", ".join(f"{n} {name}" for name, n in made.items())
    )
    for how in faults.HOW:
        for nth in range(1, sum(made.values()) + 1, count):
            run, where = bench.place(), f"{how} at call {nth}"
            code = errno.EIO if nth % 2 else errno.ENOSPC
            child = bench.train(spec, run, before=lambda nth=nth, how=how, code=code: faults.fail_at(nth, how, code))
            if how.startswith("kill"):
                tally.check(child.code == faults.KILLED, f"{where}: ended with {child.code}: {child.error}")
            else:  # a failed removal is repeated later, so the run may continue
                fine = child.code == children.DONE or (child.code == children.REFUSED and _typed(child.error))
                tally.check(fine, f"{where}: ended with {child.code}: {child.error}")
            committed = max([0, *(int(step) for step in child.said("saved"))])
            step = newest_step(run, tally, where)
            tally.check(step >= committed, f"{where}: step {committed} was committed, and {step} is the newest")
            finish_and_compare(bench, spec, run, tally, where)
            shutil.rmtree(run, ignore_errors=True)
            tally.done[how] += 1
            bench.progress(f"calls: {how} {nth} of {sum(made.values())}")
    return tally


def _count(bench: Bench) -> Counter[str]:
    """Count the calls of each kind in an undisturbed run."""
    spec, run = bench.spec("bigram", **SETTINGS), bench.place()
    names: list[str] = []

    def work(say: children.Say) -> None:
        from lmzoo.runs.run import train_run

        faults.count_calls(lambda number, name: names.append(name))
        train_run(spec, run, resume=True)
        say("made " + " ".join(names))

    return Counter(children.run(work).said("made")[0].split())


def _typed(error: str) -> bool:
    """Return True for a one-line error of lmzoo about a file that cannot be written or removed."""
    return (
        error.startswith(("CheckpointError: ", "ConfigError: "))
        and children.LINE_BREAK not in error
        and " cannot be " in error
    )
