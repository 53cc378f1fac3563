"""The budget of a comparison: the same number of steps, tokens, training FLOPs or seconds for every model.

FLOPs and seconds are turned into steps before anything is trained, for each model by its own cost. A training step
costs three times the FLOPs of its forward pass. Seconds count training steps alone, at the speed that is measured on
this machine at the start. A measured speed is kept in the comparison, and is the same when the comparison goes on.

Tokens are targets, without padding. With isolated documents their number varies from step to step, so a step counts as
the mean over an epoch. FLOPs are counted for this number of tokens at the context length, seconds for the padded rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo import configs, files
from lmzoo.bench.train import bench_train
from lmzoo.compare.results import TRAINING_PASSES
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError
from lmzoo.hardware import default_device
from lmzoo.matching import parse_number
from lmzoo.model import LanguageModel
from lmzoo.runs.spec import RunSpec
from lmzoo.storage import atomic
from lmzoo.train.precision import resolve_precision

KINDS = ("steps", "tokens", "flops", "seconds")
SPEEDS_FILE = "speeds.json"
_MAX_BYTES = 1 << 20
_REPEATS = 3

Speed = Callable[[RunSpec], float]  # training tokens per second


@dataclass(frozen=True)
class Budget:
    """An amount of one of `KINDS`."""

    kind: str
    amount: float


def parse_budget(text: str) -> Budget:
    """Parse "tokens=5M" and the like. Raises `ConfigError`."""
    kind, equals, number = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        raise ConfigError(f"budget={text!r} must have the form KIND=NUMBER, as in 'tokens=5M'")
    if kind not in KINDS:
        raise ConfigError(f"budget={text!r}: {kind!r} is not a budget{configs.suggest(kind, KINDS)}")
    return Budget(kind, parse_number(f"budget={text!r}", number))


def spend(
    specs: Sequence[RunSpec], budget: Budget, vocab_size: int, speed: Speed, train: TokenSplit | None = None
) -> list[RunSpec]:
    """Return the specs with the largest number of steps that the budget allows, for each model.

    `train` is the training split, which is needed if its documents are isolated. A model without a cost (one that is
    fitted in one pass, or counts no FLOPs) gets the largest number of steps of the others. Raises `ConfigError` for a
    budget of less than one step: a model is evaluated after a step.
    """
    steps: list[int | None] = []
    for spec in specs:
        cost = _cost_of_step(spec, budget, vocab_size, speed, train)
        steps.append(int(budget.amount / cost) if cost else None)
        if cost and not steps[-1]:
            tokens, needed = tokens_per_step(spec, vocab_size, train), _enough(cost)
            raise ConfigError(
                f"budget {budget.kind}={budget.amount:g} is too small for one evaluation: one step of {spec.model} "
                f"reads {tokens:,.0f} tokens and needs {budget.kind}={needed:g}"
            )
    most = max((number for number in steps if number), default=None)
    if most is None:
        raise ConfigError(f"budget {budget.kind}={budget.amount:g}: no model has a cost in {budget.kind}: give tokens")
    return [
        dataclasses.replace(spec, train=dataclasses.replace(spec.train, steps=number or most))
        for spec, number in zip(specs, steps, strict=True)
    ]


def _enough(cost: float) -> float:
    """Return a cost rounded up to three digits, so that a budget of the number is enough."""
    unit = 10.0 ** (math.floor(math.log10(cost)) - 2)
    return math.ceil(cost / unit * (1 - 1e-12)) * unit


def tokens_per_step(spec: RunSpec, vocab_size: int, train: TokenSplit | None = None) -> float:
    """Return the number of targets of one optimizer step; the mean, if the documents of `train` are isolated."""
    config, context_length = spec.train, spec.model_config(vocab_size).context_length
    if config.documents == "joined":
        return config.batch_size * config.grad_accumulation * context_length
    assert train is not None, "the number of targets depends on the documents"
    batches = IsolatedBatches(train, config.batch_size, context_length, config.seed)
    return config.grad_accumulation * batches.targets_per_batch


def _cost_of_step(
    spec: RunSpec, budget: Budget, vocab_size: int, speed: Speed, train: TokenSplit | None
) -> float | None:
    """Return what one optimizer step costs, in the unit of the budget; None if it costs nothing."""
    tokens = tokens_per_step(spec, vocab_size, train)
    if budget.kind == "steps":
        return 1
    if budget.kind == "tokens":
        return tokens
    blank = spec.make_model(vocab_size, device="meta")
    if not blank.traits.trainable:
        return None
    if budget.kind == "flops":
        return TRAINING_PASSES * tokens * blank.flops_per_token(blank.config.context_length) or None
    config = spec.train
    return config.batch_size * config.grad_accumulation * blank.config.context_length / speed(spec)


def measure_speed(model: LanguageModel, spec: RunSpec) -> float:
    """Measure training tokens per second of a model, whose weights are changed."""
    precision = resolve_precision(spec.train.precision, model, spec.train.batch_size)
    return bench_train(model, spec.train, precisions=[precision], repeats=_REPEATS)["results"][0]["tokens_per_s"]


class Speeds:
    """The training speeds of models, measured once for each comparison: `write` keeps them in its folder."""

    def __init__(self, folder: Path, vocab_size: int, *circumstances: Any) -> None:
        self._folder, self._vocab_size, self._circumstances = folder, vocab_size, circumstances
        self._kept = _read_speeds(folder)
        self._measured = False

    def of(self, spec: RunSpec) -> float:
        """Return the training tokens per second of a model; measure them if they are not known yet."""
        model = configs.to_dict(spec.model_config(self._vocab_size))
        facts = [spec.model, model, configs.to_dict(spec.train), *self._circumstances]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
        if key not in self._kept:
            self._kept[key] = measure_speed(spec.make_model(self._vocab_size, device=default_device()), spec)
            self._measured = True
        return self._kept[key]

    def write(self) -> None:
        """Keep what was measured."""
        if self._measured:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.write_file(self._folder / SPEEDS_FILE, json.dumps(self._kept, indent=1) + "\n")


def _read_speeds(folder: Path) -> dict[str, float]:
    try:
        found = files.parse_json(files.read_bytes(folder / SPEEDS_FILE, _MAX_BYTES))
        return {key: float(value) for key, value in found.items() if float(value) > 0}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
