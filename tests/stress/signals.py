"""Sends SIGTERM and SIGINT at random times: the run ends within a step and a save, and resumes exactly."""

from __future__ import annotations

import shutil
import signal
import time

from tests.stress import children, runs
from tests.stress.bench import Bench, Tally, finish_and_compare, newest_step

SETTINGS = {
    "steps": 40,
    "eval_every": 2,
    "checkpoint_every": 8,
}  # an evaluation of many batches after every second step


def signals(bench: Bench, count: int) -> Tally:
    """Send signals, both kinds in turn, to runs of all backbones in turn, until `count` were received."""
    tally = Tally()
    slowest, number = 0.0, 0
    while sum(tally.done[name] for name in ("SIGINT", "SIGTERM")) < count and number < 10 * count:
        backbone = list(runs.BACKBONES)[number % len(runs.BACKBONES)]
        spec, run, over = bench.spec(backbone, **SETTINGS), bench.place(), False
        bench.whole(spec)
        while not over:
            kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
            number += 1
            where = f"{backbone}, signal {number}"
            child = bench.start(spec, run)
            child.wait_for("step")
            time.sleep(bench.random.random() * 0.15)
            sent = time.monotonic()
            child.signal(kind)
            child.finish()
            took = time.monotonic() - sent
            over = child.code != children.INTERRUPTED
            if over:  # the signal came after the training, when only the sample was left
                tally.check(child.code in (children.DONE, children.CRASHED, -kind), f"{where}: ended with {child.code}")
                tally.check(not child.said("error"), f"{where}: {child.error}")
                continue
            slowest = max(slowest, took)
            heard = child.lines[child.lines.index("signal") + 1 :]
            steps, saves = (sum(line.startswith(word) for line in heard) for word in ("step", "saving"))
            tally.check(steps <= 1 and saves <= 1, f"{where}: {steps} steps and {saves} saves after it")
            tally.check(not child.said("error"), f"{where}: {child.error}")
            done = int(child.said("step")[-1])
            tally.check(newest_step(run, tally, where) == done, f"{where}: step {done} was not saved")
            tally.done[signal.Signals(kind).name] += 1
            tally.done["in an evaluation that was abandoned"] += _given_up(child)
            bench.progress(f"signals: {sum(tally.done[name] for name in ('SIGINT', 'SIGTERM'))} of {count}")
        before = len(tally.failures)
        finish_and_compare(bench, spec, run, tally, f"{backbone}, after {number} signals")
        tally.done["runs that ended as the undisturbed one"] += len(tally.failures) == before
        tally.notes[:] = [f"the slowest run ended {slowest:.2f} s after its signal"]
        shutil.rmtree(run, ignore_errors=True)
    return tally


def _given_up(child: children.Child) -> bool:
    """Return True if the last step had an evaluation that was not reported."""
    step = int(child.said("step")[-1])
    return step % SETTINGS["eval_every"] == 0 and f"val {step}" not in child.lines
