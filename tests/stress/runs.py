"""Short runs of three backbones, and a bitwise comparison of two runs."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import RunSpec, make_spec
from lmzoo.storage import checkpoints

TEXT = "".join(f"The {i} cats sat on {i * 7 % 13} mats, and {i * i % 29} of them purred.\n" for i in range(120))
BACKBONES: dict[str, dict[str, Any]] = {
    "lstm": {"d_model": 16, "n_layers": 1, "dropout": 0.1},
    "gpt2": {"d_model": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.1},
    "mamba": {"d_model": 16, "n_layers": 1, "d_state": 4},
}
# 340 sequences of 16 tokens, 8 in a step: an epoch ends within step 43, in the middle of a batch.
RECIPE = {"context_length": 16, "batch_size": 4, "grad_accumulation": 2, "log_every": 1, "warmup_steps": 2}
TIMES = {"seconds", "eval_seconds", "tokens_per_s"}  # differ between any two runs


def make_text(folder: Path) -> Path:
    """Write the text of all runs to a file."""
    path = folder / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def spec(backbone: str, text: Path, **settings: Any) -> RunSpec:
    """Make the spec of a tiny `backbone`: one of the three, or "bigram", whose saves need the fewest calls."""
    return make_spec(backbone, str(text), overrides={**BACKBONES.get(backbone, {}), **RECIPE, **settings})


def difference(run: Path, whole: Path) -> str:
    """Name the first difference between two finished runs; empty if there is none.

    Weights, optimizer, random state, counters, logged numbers (except times) and the sample must be bitwise equal.
    """
    (step, ours), (its_step, theirs) = checkpoints.saved(run)[0], checkpoints.saved(whole)[0]
    if step != its_step:
        return f"the last step is {step}, not {its_step}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        found = unequal(load_file(ours / name), load_file(theirs / name))
        if found:
            return f"{name}: {found}"
    counters = [json.loads((path / "training.json").read_text()) for path in (ours, theirs)]
    if counters[0] | dict.fromkeys(TIMES, 0) != counters[1] | dict.fromkeys(TIMES, 0):
        return f"training.json: {counters[0]}, not {counters[1]}"
    for mine, other in zip_longest(logged(run), logged(whole)):
        if mine != other:
            return f"metrics.jsonl: {mine}, not {other}"
    return "" if (run / "sample.txt").read_bytes() == (whole / "sample.txt").read_bytes() else "sample.txt"


def unequal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> str:
    """Name the first tensor that differs or exists on one side only."""
    if ours.keys() != theirs.keys():
        return f"{sorted(ours.keys() ^ theirs.keys())[0]} exists on one side only"
    return next((name for name in ours if not torch.equal(ours[name], theirs[name])), "")


def logged(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without the times."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read_metrics(run)]


def litter(run: Path) -> list[str]:
    """List temporary files left in a run."""
    places = [*run.iterdir(), *(run / "checkpoints").glob("*")] if run.is_dir() else []
    return [path.name for path in places if path.name.startswith(".")]


def content(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
