"""A text and settings of comparisons that take a second."""

from __future__ import annotations

import gc
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo.compare import forecast, sample
from lmzoo.compare.engine import Done, Job, Setup
from lmzoo.compare.processes import serve
from lmzoo.compare.ray_engine import work
from tests.helpers import SHORT_SAMPLE, SHORT_TIMING

TRAINING = {"steps": 24, "batch_size": 4, "context_length": 16, "eval_every": 6, "log_every": 1}
SETTINGS = TRAINING | {"d_model": 8, "n_layers": 1, "n_heads": 2}
NAMES, SEEDS, TUNE = ["bigram", "gpt2"], 2, "learning_rate=0.03,0.1"
TIMED = ("train_tokens_per_s", "decode_tokens_per_s", "seconds", "eval_seconds")


def write_text(folder: Path, lines: int = 100) -> str:
    rng = random.Random(0)
    words = "the sea was calm and a small ship sells shells on the shore when wind blew"
    text = "\n".join(" ".join(rng.choice(words.split()) for _ in range(rng.randint(3, 8))) for _ in range(lines))
    path = folder / "sea.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def lasting(value: Any) -> Any:
    """Return the content of results.json without the figures that measure time."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in TIMED}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def written(out: Path) -> Any:
    """Return the content of results.json, without measured times and the command."""
    return lasting(json.loads((out / "results.json").read_text(encoding="utf-8"))) | {"command": ""}


def serve_short_samples(*arguments: Any) -> None:
    """`processes.serve` with the short samples and timings of the tests, in the place of it."""
    _shorten()
    serve(*arguments)


def work_on_short_samples(setup: Setup, job: Job) -> Done:
    """`ray_engine.work` with the short samples and timings of the tests, in the place of it."""
    _shorten()
    return work(setup, job)


def _shorten() -> None:
    sample.SAMPLE_TOKENS = SHORT_SAMPLE
    forecast.STEPS_SECONDS = SHORT_TIMING


@dataclass(frozen=True)
class Question:
    """A job for `FrozenObjects`."""

    label: str = "a question"


class FrozenObjects:
    """The setup of a worker and the worker: each job asks how many objects the garbage collector ignores."""

    def make_worker(self) -> FrozenObjects:
        return self

    def do(self, job: Question) -> int:
        return gc.get_freeze_count()

    def failed(self, job: Question, error: BaseException) -> int:
        raise error
