"""Interrupts runs after every single step: each resumed run ends like one that never stopped."""

from __future__ import annotations

import os
import shutil
import signal

from lmzoo.train.events import Event, StepEvent
from tests.stress import children, runs
from tests.stress.bench import Bench, Tally, finish_and_compare

SETTINGS = {"steps": 46, "eval_every": 15, "checkpoint_every": 15}  # an epoch ends within step 43


def steps(bench: Bench, count: int) -> Tally:
    """Interrupt runs of each backbone in every `count`th step."""
    tally = Tally()
    for backbone in runs.BACKBONES:
        spec = bench.spec(backbone, **SETTINGS)
        for step in range(1, SETTINGS["steps"] + 1, count):
            run, where = bench.place(), f"{backbone}, interrupted in step {step}"

            def interrupt(event: Event, step: int = step) -> None:
                if isinstance(event, StepEvent) and event.step == step:
                    os.kill(os.getpid(), signal.SIGINT)

            child = bench.train(spec, run, also=[interrupt])
            tally.check(child.code == children.INTERRUPTED, f"{where}: ended with {child.code}: {child.error}")
            tally.check(child.said("saved")[-1:] == [str(step)], f"{where}: saved {child.said('saved')}")
            finish_and_compare(bench, spec, run, tally, where)
            shutil.rmtree(run, ignore_errors=True)
            tally.done[f"{backbone}: steps"] += 1
            bench.progress(f"steps: {backbone} {step} of {SETTINGS['steps']}")
    return tally
