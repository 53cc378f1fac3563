"""Runs out of memory at every place of a run: one line names the settings to reduce, and the run can be resumed."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import torch

from lmzoo.runs.run import RunSpec
from lmzoo.train.events import Event, StepEvent
from tests.stress import children
from tests.stress.bench import Bench, Tally, finish_and_compare, newest_step

# Steps that allocate about 100 MB in addition to the memory of the process, so that limits below that matter.
SETTINGS = {"steps": 6, "checkpoint_every": 2, "eval_every": 3, "batch_size": 64, "context_length": 64, "d_model": 32}


def memory(bench: Bench, count: int) -> Tally:
    """Resume a run with `count` limits on the address space, from no free memory to enough."""
    tally = Tally()
    spec = bench.spec("gpt2", **SETTINGS)
    begun = bench.place("begun")
    child = bench.start(spec, begun)
    child.wait_for("saved 2")
    child.signal(15)
    child.finish()
    tally.check(child.code == children.INTERRUPTED, f"it began with {child.code}: {child.error}")
    for number in range(count):
        run, room = bench.place(), (number * 160 // count) << 20
        shutil.copytree(begun, run)
        _with_room(bench, spec, run, room, tally)
        bench.progress(f"memory: {number + 1} of {count}")
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError()):
        run = bench.place()

        def fail(event: Event, error: BaseException = error) -> None:
            if isinstance(event, StepEvent) and event.step == 3:
                raise error

        child = bench.train(spec, run, also=[fail])
        _judge(child, 2, tally, type(error).__name__)
        finish_and_compare(bench, spec, run, tally, type(error).__name__)
    return tally


def _with_room(bench: Bench, spec: RunSpec, run: Path, room: int, tally: Tally) -> None:
    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))

    where = f"with {room >> 20} MB left"
    child = bench.train(spec, run, before=limit)
    step = newest_step(run, tally, where)
    if child.code == children.DONE:
        tally.done["memory was enough"] += 1
    else:
        _judge(child, step, tally, where)
    finish_and_compare(bench, spec, run, tally, where)
    shutil.rmtree(run)


def _judge(child: children.Child, step: int, tally: Tally, where: str) -> None:
    line = child.error
    fine = child.code == children.REFUSED and line.startswith("OutOfMemoryError: out of memory: batch_size=64 with ")
    tally.check(fine and children.LINE_BREAK not in line, f"{where}: ended with {child.code}: {line}")
    tally.check("context_length=64" in line and f"checkpoint of step {step} is kept" in line, f"{where}: {line}")
    tally.done["out of memory, reported in one line"] += 1
