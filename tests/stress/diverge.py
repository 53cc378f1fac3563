"""NaN and infinity in loss, gradient, weights or optimizer: no update, no bad checkpoint, one line with advice."""

from __future__ import annotations

import math
import shutil
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file

from lmzoo.errors import DivergedError
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import checkpoints
from tests.stress import children, poison, runs
from tests.stress.bench import Bench, Tally, finish_and_compare

SETTINGS = {"steps": 12, "checkpoint_every": 4, "eval_every": 3}


def diverge(bench: Bench, count: int) -> Tally:
    """Try all kinds, values, backbones and steps in random order, at most `count` cases."""
    tally = Tally()
    cases = list(product(poison.KINDS, (math.nan, math.inf, -math.inf), runs.BACKBONES, (8, 7, 1, 12)))
    bench.random.shuffle(cases)
    for number, (kind, value, backbone, step) in enumerate(cases[:count]):
        _poisoned(bench, poison.Poison(kind, step, value, runs.RECIPE["grad_accumulation"]), backbone, tally)
        bench.progress(f"diverge: {number + 1} of {min(count, len(cases))}")
    return tally


def _poisoned(bench: Bench, bad: poison.Poison, backbone: str, tally: Tally) -> None:
    spec, run = bench.spec(backbone, **SETTINGS), bench.place()
    where = f"{bad.value} in the {bad.kind} of step {bad.step} of {backbone}"
    child = children.run(lambda say: _train(spec, run, bad, say))
    # Bad weights after a step are found at the next save or in the next step, bad moments one step later.
    late = {"weight after the step": 1, "optimizer": 2}.get(bad.kind, 0) if bad.step % 4 else 0
    steps = {bad.step} if not late else {bad.step + late, -(-bad.step // 4) * 4}
    message = child.error
    said = any(message.startswith(f"DivergedError: step {step}: ") for step in steps)
    tally.check(said and children.LINE_BREAK not in message, f"{where}: ended with {child.code}: {message}")
    tally.check("try a lower learning_rate than" in message, f"{where}: no advice: {message}")
    if bad.kind in ("loss", "gradient", "weight"):
        tally.check(child.said("unchanged") == ["True"], f"{where}: the weights were updated")
    good = (min(steps) - 1) // 4 * 4
    kept = [step for step, _ in checkpoints.saved(run)]
    tally.check(kept == [step for step in (8, 4) if step <= good], f"{where}: the checkpoints are {kept}")
    tally.check(f"checkpoint of step {good} is kept" in message if good else "nothing was saved" in message, where)
    for _, folder in checkpoints.saved(run):
        for name in ("model.safetensors", "optimizer.safetensors"):
            for tensor in load_file(folder / name).values():
                tally.check(bool(torch.isfinite(tensor.float()).all()), f"{where}: {folder.name} holds it")
    tally.done[f"{bad.kind}: {'nan' if math.isnan(bad.value) else 'inf'}"] += 1
    finish_and_compare(bench, spec, run, tally, where)
    shutil.rmtree(run, ignore_errors=True)


def _train(spec: RunSpec, run: Path, bad: poison.Poison, say: children.Say) -> None:
    bad.spread()
    try:
        train_run(spec, run, resume=True)
    except DivergedError:
        say(f"unchanged {bad.unchanged()}")
        raise
