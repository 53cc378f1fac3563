"""Sends SIGKILL at random times, half of them during a save: no committed step is lost, and the end is the same."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from lmzoo.runs.run import RunSpec
from tests.stress import children, runs
from tests.stress.bench import Bench, Tally, finish_and_compare, newest_step

SETTINGS = {"steps": 50, "eval_every": 25, "checkpoint_every": 2}
SAVE_SECONDS = 0.006  # about the duration of such a save


def kills(bench: Bench, count: int) -> Tally:
    """Kill runs of each of three backbones `count` times, at least half of the times during a save."""
    tally = Tally()
    for backbone in runs.BACKBONES:
        _kill_often(bench, backbone, count, tally)
    return tally


def _kill_often(bench: Bench, backbone: str, count: int, tally: Tally) -> None:
    spec, random = bench.spec(backbone, **SETTINGS), bench.random
    began = time.monotonic()
    bench.whole(spec)
    life = time.monotonic() - began  # duration of an undisturbed run
    run, committed, dead, in_save = bench.place(), 0, 0, 0
    while dead < count or in_save < count // 2:
        child = bench.start(spec, run)
        if in_save < (dead + 1) // 2:
            child.wait_for("saving", random.randint(1, 3))
            time.sleep(random.random() * SAVE_SECONDS)
        else:
            time.sleep(random.random() * life / 2)
        child.signal(signal.SIGKILL)
        child.finish()
        where = f"{backbone}, kill {dead + 1}"
        committed = max([committed, *(int(step) for step in child.said("saved"))])
        if child.code == children.DONE:  # the run ended before the kill
            _compare(bench, spec, run, tally, where)
            run, committed = bench.place(), 0
            continue
        tally.check(child.code == -signal.SIGKILL, f"{where}: ended with {child.code}: {child.error}")
        dead += 1
        saving_now = bool(child.lines) and child.lines[-1].startswith("saving")
        in_save += saving_now
        tally.done[f"{backbone}: kills {'in a save' if saving_now else 'elsewhere'}"] += 1
        step = newest_step(run, tally, where)
        tally.check(step >= committed, f"{where}: step {committed} was committed, and {step} is the newest")
        committed = step
        bench.progress(f"kills: {backbone} {dead} of {count}")
    _compare(bench, spec, run, tally, f"{backbone}, at the end")


def _compare(bench: Bench, spec: RunSpec, run: Path, tally: Tally, where: str) -> None:
    before = len(tally.failures)
    finish_and_compare(bench, spec, run, tally, where)
    tally.done["runs that ended as the undisturbed one"] += len(tally.failures) == before
    shutil.rmtree(run, ignore_errors=True)
