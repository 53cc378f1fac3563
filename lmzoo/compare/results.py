"""The results of a comparison as plain values, and the file `results.json` that stores them (docs/results.md)."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lmzoo import humanize, plotting
from lmzoo.compare.statistics import Mean, Statistics
from lmzoo.storage import atomic

SCHEMA = 2
_FOLDERS = re.compile(r"""(?<![^\s'"=(])/(?:[^\s/'"]+/)+""")  # of an absolute path, at the start of a word
FILE = "results.json"
TRAINING_PASSES = 3  # FLOPs of a training step, in forward passes
STOPPED = "stopped"  # status of a run that successive halving did not continue


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one run: a model with one seed. A run that diverged is a result too, without a loss.

    The result of a part of a run, for successive halving, has the status "stopped", and a `selection_loss` but no loss.

    The fields mean the same as in `ModelResult`; `run` is the directory in the comparison. `selection_loss` is the loss
    on the half of the validation split that chooses a tuned setting; `loss` is then of the other half. `at_once` is the
    number of runs that were made at the same time as this one, itself included. `by_position` and `by_class` as in
    `final_evaluation.Details`.
    """

    seed: int
    run: str
    status: Literal["trained", "diverged", "stopped"] = "trained"
    problem: str = ""
    loss: float | None = None
    selection_loss: float | None = None
    bits_per_byte: float | None = None
    train_tokens_per_s: float | None = None
    seconds: float | None = None
    eval_seconds: float | None = None
    curve: Sequence[Sequence[float]] = ()
    at_once: int = 1
    by_position: Sequence[Mapping[str, Any]] = ()
    by_class: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """The results of one model: a row of the table.

    `loss` is nats per token over the whole validation split, the mean over the seeds; `None` means not measured.
    `status` is "ranked", "diverged" (for one seed at least, training or the final evaluation gave a number that is not
    finite) or "failed" (a conformance check failed, so the loss may mean nothing, or the code raised an error);
    `problem` gives the reason for the last two. `curve` holds [tokens seen, validation loss] of each evaluation.
    `steps` and `tokens` count the training, `seconds` its steps alone, `eval_seconds` its evaluations. `state_bytes` is
    the decoding state of one row at the context length. `cells` holds the result of each seed, and losses, curves and
    times are the means over them; `decode_tokens_per_s`, `sample`, `config` (the settings) and `run` (the directory in
    the comparison) are of the first seed.
    """

    name: str
    status: Literal["ranked", "diverged", "failed"] = "ranked"
    problem: str = ""
    steps: int = 0
    tokens: int = 0
    params: int = 0
    params_non_embedding: int = 0
    loss: float | None = None
    bits_per_byte: float | None = None
    train_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    flops_per_token: float = 0.0
    state_bytes: int = 0
    seconds: float | None = None
    eval_seconds: float | None = None
    run: str = ""
    sample: str = ""
    curve: Sequence[Sequence[float]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[CellResult] = ()
    checks: Mapping[str, bool] = field(default_factory=dict)  # those that decide on a rank: passed or failed
    by_position: Sequence[Mapping[str, Any]] = ()
    by_class: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A baseline: an n-gram model counted on `counted_tokens` tokens of the training split."""

    name: str
    order: int
    loss: float
    bits_per_byte: float
    counted_tokens: int


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """A loss that needs no model: "uniform", or the compressor "xz"."""

    name: str
    loss: float
    bits_per_byte: float


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole comparison.

    `budget` (kind, amount, steps, batch_size, context_length, tokens) is the same for every model; but if its kind is
    "flops" or "seconds", its `steps` and `tokens` are the largest of all models, and each model has its own. `match` is
    what `sizes.match_facts` returns, empty without `--match`; `tuning` holds the values of `--tune` and what each model
    made of them. `protocol` is what `protocol.describe` returns. `probes` is empty without `--probes`.

    `seed` is the first seed, `seeds` holds all. `statistics` are over the seeds; None for one seed, and until two seeds
    of every model are done.
    """

    corpus: Mapping[str, Any]  # name, sha256, train_tokens, val_tokens, val_bytes
    tokenizer: Mapping[str, Any]  # spec, vocab_size, sha256
    budget: Mapping[str, Any]
    seed: int
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    models: Sequence[ModelResult]
    references: Sequence[Reference] = ()
    yardsticks: Sequence[Yardstick] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    bigram_limits: Mapping[str, float] = field(default_factory=dict)  # train: maximum likelihood; val: add-one
    prompt: str = ""
    decode_tokens: int = 0  # number of tokens decoded to measure the speed
    command: str = ""
    cut_contexts: Mapping[str, int] = field(default_factory=dict)  # model: context length of its preset, if longer
    complete: bool = True  # False until all models are done
    seeds: Sequence[int] = ()
    statistics: Statistics | None = None
    match: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        best = f", best {self.best.name} at {self.best.loss:.3f} nats per token" if self.best else ""
        return f"<comparison of {len(self.models)} models on {self.corpus['name']}{best}>"

    def _repr_html_(self) -> str:
        from lmzoo.compare.report_tables import ranking_table

        return ranking_table(self)

    @property
    def ranked(self) -> list[ModelResult]:
        """The ranked models, lowest loss first; with several seeds by `places`. Equal ones are ordered by name."""
        found = [model for model in self.models if model.status == "ranked" and model.loss is not None]
        places = self.places
        return sorted(found, key=lambda model: (*places.get(model.name, ()), model.name))

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """The best and the worst place that each ranked model may have.

        With one seed, the order of the losses is taken as it is; equal ones share their places. With several, only what
        the statistics show counts: no model has a place as long as there are none.
        """
        found = {model.name: model.loss for model in self.models if model.status == "ranked" and model.loss is not None}
        if len(self.seeds) < 2:
            losses = sorted(loss for loss in found.values() if loss is not None)
            return {
                name: (bisect_left(losses, loss) + 1, bisect_right(losses, loss))
                for name, loss in found.items()
                if loss is not None
            }
        if self.statistics is None:
            return {}
        return {name: (low, high) for name, (low, high) in self.statistics.ranks.items()}

    @property
    def means(self) -> Mapping[str, Mean]:
        """The means with intervals by model; of an unfinished comparison, over the seeds that all models have done."""
        return {} if self.statistics is None else self.statistics.means

    @property
    def best(self) -> ModelResult | None:
        """The model that is certainly the first, if there is one."""
        places = self.places
        first = [model for model in self.ranked if places.get(model.name) == (1, 1)]
        return first[0] if first else None

    @property
    def unranked(self) -> list[ModelResult]:
        """The models that diverged or failed a check, in the order of the command."""
        ranked = {model.name for model in self.ranked}
        return [model for model in self.models if model.name not in ranked]

    @property
    def best_reference(self) -> Reference | None:
        """The n-gram with the lowest loss."""
        return min(self.references, key=lambda reference: reference.loss, default=None)

    def to_frame(self) -> Any:
        """Returns a `pandas.DataFrame` with a line for each model, ranked ones first: loss, size, speed, problem."""
        nested = ("sample", "curve", "config", "cells", "checks", "by_position", "by_class")
        names = [field.name for field in fields(ModelResult) if field.name not in nested]
        rows = [*self.ranked, *self.unranked]
        return plotting.frame([{name: getattr(row, name) for name in names} for row in rows])

    def plot(self, ax: Any = None) -> Any:
        """Draws the validation loss of each model by tokens seen; returns the matplotlib axes, `ax` or new ones."""
        rows = [*self.ranked, *self.unranked]
        losses = {row.name: [(tokens, loss) for tokens, loss in row.curve] for row in rows}
        return plotting.curves(losses, x="tokens", y="validation loss (nats per token)", ax=ax)


def model_colors(results: Results) -> dict[str, int]:
    """Number the models in the order of the table; the number chooses the color of a model in all figures."""
    return {model.name: number for number, model in enumerate([*results.ranked, *results.unranked])}


def same_steps(results: Results) -> bool:
    """Return True if all models are trained for the same number of steps."""
    return results.budget.get("kind", "steps") in ("steps", "tokens")


def budget_text(results: Results) -> str:
    """State the budget of each model."""
    kind, amount = results.budget.get("kind", "steps"), results.budget.get("amount", 0)
    if kind == "seconds":
        return f"{humanize.duration(amount)} of training"
    if kind == "flops":
        return f"{humanize.count(amount)} training FLOPs"
    return f"{humanize.count(results.budget['tokens'])} tokens"


def portable(text: str) -> str:
    """Returns `text` without the folders of absolute paths, which name this machine and its user.

    A path in the working directory becomes relative to it; of any other path, the last name remains.
    """
    return _FOLDERS.sub("", text.replace(f"{Path.cwd()}{os.sep}", ""))


def to_json(results: Results) -> str:
    """Returns the text of results.json, ranked models first."""
    ordered = [asdict(model) for model in [*results.ranked, *results.unranked]]
    tables = {"schema": SCHEMA, **asdict(results), "models": ordered}
    return json.dumps(tables, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(results: Results, folder: Path) -> Path:
    """Write `folder/results.json` atomically."""
    path = folder / FILE
    atomic.write_file(path, to_json(results))
    return path
