"""Flips bits and truncates files in checkpoints: all damage is found and reported, and the one before is used."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from random import Random

from lmzoo.errors import CheckpointError
from lmzoo.runs.run import load_run
from lmzoo.storage import checkpoints, models
from lmzoo.train.checkpoint import newest_valid
from tests.stress.bench import Bench, Tally, finish_and_compare

SETTINGS = {"steps": 12, "checkpoint_every": 4, "eval_every": 4, "keep_checkpoints": 3}
RESUMES = 50  # one in this many damaged runs is also resumed


def damage(bench: Bench, count: int) -> Tally:
    """Damage the newest checkpoint `count` times, three of four times by a flipped bit, for each backbone in turn."""
    tally = Tally()
    for number in range(count):
        backbone = ("lstm", "gpt2", "mamba")[number % 3]
        spec = bench.spec(backbone, **SETTINGS)
        run = bench.folder / f"damaged-{backbone}"
        if not run.exists():
            shutil.copytree(bench.whole(spec), run)
            shutil.rmtree(checkpoints.path_of(run, 12))
        newest = checkpoints.path_of(run, 8)
        file = bench.random.choice(sorted(newest.iterdir()))
        good = file.read_bytes()
        what = _cut(file, good, bench.random) if number % 4 == 3 else _flip(file, good, bench.random)
        where = f"{backbone}, case {number + 1}: {what}"
        tally.done["files cut off" if number % 4 == 3 else "bits flipped"] += 1
        _must_be_seen(run, file, tally, where)
        if number % RESUMES == 0:
            copy = bench.place()
            shutil.copytree(run, copy)
            child = finish_and_compare(bench, spec, copy, tally, where)
            said = any(
                "set aside as damaged-step-00000008; training continues from step 4" in n for n in child.said("note")
            )
            tally.check(said and child.said("start") == ["4"], f"{where}: resuming said {child.said('note')}")
            tally.done["resumed from the checkpoint before, and equal in the end"] += 1
            shutil.rmtree(copy)
        file.write_bytes(good)
        if number % 100 == 99:
            bench.progress(f"damage: {number + 1} of {count}")
    return tally


def _flip(file: Path, good: bytes, random: Random) -> str:
    place, bit = random.randrange(len(good)), random.randrange(8)
    bad = bytearray(good)
    bad[place] ^= 1 << bit
    file.write_bytes(bad)
    return f"bit {bit} of byte {place} of {file.name}"


def _cut(file: Path, good: bytes, random: Random) -> str:
    length = random.randrange(len(good))
    os.truncate(file, length)
    return f"{file.name} cut to {length} of {len(good)} bytes"


def _must_be_seen(run: Path, file: Path, tally: Tally, where: str) -> None:
    """Check that loading the run, loading the checkpoint and resuming all find the damage."""
    newest = file.parent
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_run(run)
        used = checkpoints.find(run).path.name
    told = any("step-00000004 is used instead" in str(warning.message) for warning in said)
    tally.check(used == "step-00000004" and told, f"{where}: {used} was used")
    try:
        models.load_model(newest)
        tally.failures.append(f"{where}: the damaged checkpoint was loaded")
    except CheckpointError as error:
        tally.check("\n" not in str(error), f"{where}: more than a line: {error}")
    aside = newest.with_name(f"damaged-{newest.name}")
    folder, notes = newest_valid(run)
    fine = folder is not None and folder.path.name == "step-00000004" and len(notes) == 1
    tally.check(fine, f"{where}: the trainer would resume from {folder} and report {notes}")
    os.rename(aside, newest)
