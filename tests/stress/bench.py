"""Setup that all parts of the stress run share: a folder, a text, a random generator, child processes, a tally."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lmzoo.data import load_corpus, open_store, train_tokenizer
from lmzoo.errors import CheckpointError
from lmzoo.runs import run as runs_module
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import checkpoints
from lmzoo.train import evaluate
from lmzoo.train.events import Listener, NoteEvent
from tests.stress import children, runs
from tests.stress.children import Child, Say


@dataclass
class Tally:
    """Counts of what a part has done, by kind, and its failures."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, holds: bool, otherwise: str) -> bool:
        """Record the failure `otherwise` unless `holds`."""
        if not holds:
            self.failures.append(otherwise)
        return holds


class Bench:
    """Starts runs in child processes; they share a text, a cache, and the undisturbed runs for comparison."""

    def __init__(self, folder: Path, seed: int, progress: Callable[[str], None] = lambda text: None) -> None:
        torch.set_num_threads(1)
        os.environ["LMZOO_CACHE"] = str(folder / "cache")
        runs_module.SAMPLE_TOKENS = 16
        evaluate.TOKENS_AT_A_TIME = 64  # several batches per evaluation, so that signals can come between them
        self.folder, self.seed, self.progress = folder, seed, progress
        self.text = runs.make_text(folder)
        self.random = random.Random(seed)
        self._wholes: dict[str, Path] = {}
        self._made = 0
        corpus = load_corpus(str(self.text))
        open_store(corpus, train_tokenizer("char", corpus.chunks("train")))
        for backbone in runs.BACKBONES:
            self.spec(backbone).model_config(64)
        for name in ("lmzoo.generation.text", "numpy.random", "tomli_w"):
            import_module(name)  # training does, in every child otherwise
        gc.collect()
        gc.freeze()  # the garbage collector of a child would copy every page that it visits

    def spec(self, backbone: str, **settings: Any) -> RunSpec:
        """Make the spec of a tiny run."""
        return runs.spec(backbone, self.text, **settings)

    def place(self, name: str = "run") -> Path:
        """Return a new path for a run, where nothing exists yet."""
        self._made += 1
        return self.folder / f"{name}-{self._made}"

    def whole(self, spec: RunSpec) -> Path:
        """Return the undisturbed run of a spec, trained at the first call."""
        key = repr(dataclasses.asdict(spec))  # repr(spec) names only a part of the settings
        if key not in self._wholes:
            path = self.place("whole")
            child = self.train(spec, path)
            assert child.code == children.DONE, child.lines
            self._wholes[key] = path
        return self._wholes[key]

    def start(
        self, spec: RunSpec, path: Path, *, before: Callable[[], object] = lambda: None, also: Sequence[Listener] = ()
    ) -> Child:
        """Start or resume a run in a child, which calls `before` first and has the additional listeners `also`."""
        return children.fork(lambda say: _train(say, spec, path, before, also))

    def train(self, spec: RunSpec, path: Path, **options: Any) -> Child:
        """Start or resume a run in a child, and wait for its end."""
        return self.start(spec, path, **options).finish()


def _train(say: Say, spec: RunSpec, path: Path, before: Callable[[], object], also: Sequence[Listener]) -> None:
    before()
    notes: Listener = lambda event: say(f"note {event.message}") if isinstance(event, NoteEvent) else None  # noqa: E731
    train_run(spec, path, resume=True, listeners=[notes, children.narrator(say), *also])


def newest_step(run: Path, tally: Tally, where: str) -> int:
    """Return the step of the newest checkpoint; record a checkpoint that does not open, or a missing line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            step = checkpoints.find(run).json("training.json")["step"] if checkpoints.saved(run) else 0
        except (CheckpointError, checkpoints.DamagedCheckpointWarning) as error:
            tally.failures.append(f"{where}: {error}")
            return 0
    lines = runs.logged(run) if (run / "metrics.jsonl").exists() else []
    steps = [line["step"] for line in lines if line["split"] == "train" and line["step"] <= step]
    tally.check(steps == list(range(1, step + 1)), f"{where}: metrics.jsonl lacks lines before step {step}")
    return step


def finish_and_compare(bench: Bench, spec: RunSpec, run: Path, tally: Tally, where: str) -> Child:
    """Resume a run to its end: it must be bitwise equal to the undisturbed one, without leftover files."""
    child = bench.train(spec, run)
    if tally.check(child.code == children.DONE, f"{where}: resuming ended with {child.code}: {child.error}"):
        found = runs.difference(run, bench.whole(spec))
        tally.check(not found, f"{where}: the resumed run differs in {found}")
        tally.check(not runs.litter(run), f"{where}: litter {runs.litter(run)}")
    return child
