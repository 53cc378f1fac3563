"""The cells of a comparison: one model with one seed each, in a run directory of its own.

A finished cell leaves its results in the file `cell.json` of its run, with a hash of everything that decides them.
A comparison that is continued reads them there, so only missing cells are trained, and no figure is measured again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmzoo import configs, files
from lmzoo.compare.final_evaluation import mean_losses
from lmzoo.compare.results import CellResult, ModelResult, portable
from lmzoo.compare.tune import RATE, with_values
from lmzoo.errors import ConfigError, DivergedError
from lmzoo.hardware import default_device
from lmzoo.model import LanguageModel
from lmzoo.runs.directory import CONFIG_FILE, data_table, read_tables, train_config
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.metrics import METRICS_FILE, read_metrics
from lmzoo.runs.resuming import require_same
from lmzoo.runs.run import train_run
from lmzoo.runs.saved import evaluate_run, is_run, load_run
from lmzoo.runs.spec import RunSpec
from lmzoo.storage import atomic
from lmzoo.train.events import Listener
from lmzoo.train.signals import Interrupted
from lmzoo.train.trainer import LastEvaluation

RUNS = "runs"
CELL_FILE = "cell.json"
MOST_SEEDS = 1000
_MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class Cell:
    """A run to be made: a model with the seed of `spec`, in the directory `run`, called `label` in the results.

    `keeps`: its results are kept in the run; a finished run that was named by the user is only read.
    """

    model: str
    spec: RunSpec
    run: Path
    label: str
    keeps: bool = True

    @property
    def seed(self) -> int:
        """The seed of weights, data order and dropout."""
        return self.spec.train.seed


@dataclass(frozen=True)
class Measured:
    """The result of a cell, and other fields of `ModelResult` that were measured with it."""

    cell: CellResult
    more: Mapping[str, Any] = field(default_factory=dict)


def make_seeds(first: int, number: int) -> list[int]:
    """Return the seeds of a comparison: `first` and those that follow it. Raises `ConfigError`."""
    if type(number) is not int or not 1 <= number <= MOST_SEEDS:
        raise ConfigError(f"seeds={number!r} must be an integer in [1, {MOST_SEEDS}]")
    return [first + n for n in range(number)]


def make_cell(folder: Path, spec: RunSpec, first: RunSpec, name: str) -> Cell:
    """Make the cell of `spec`; its name shows in which training settings it differs from the cell `first`."""
    before, now = configs.to_dict(first.train), configs.to_dict(spec.train)
    changed = [key for key in now if now[key] != before[key]]
    follows = with_values(first, {RATE: spec.train.learning_rate}).train.min_learning_rate
    if spec.train.min_learning_rate == follows and "min_learning_rate" in changed:
        changed.remove("min_learning_rate")
    changes = [f"{key}={now[key]:g}" if isinstance(now[key], float) else f"{key}={now[key]}" for key in changed]
    label = f"{RUNS}/{','.join([name, *changes])}"
    return Cell(name, spec, folder / label, label)


def with_seed(spec: RunSpec, seed: int) -> RunSpec:
    """Return `spec` with another seed. Raises `ConfigError`."""
    return dataclasses.replace(spec, train=dataclasses.replace(spec.train, seed=seed))


def refuse_other_runs(cells: Sequence[Cell], data: PreparedData) -> None:
    """Raise an `LmzooError` if the directory of a cell holds a run with other settings, before anything is written."""
    for cell in cells:
        if not cell.keeps or not is_run(cell.run):
            continue
        config = cell.spec.model_config(data.tokenizer.vocab_size)
        tables = {
            "model": {"name": cell.spec.model, **configs.to_table(config)},
            "train": configs.to_table(cell.spec.train),
            "data": data_table(cell.spec, data.corpus, data.tokenizer),
            "machine": {"python": platform.python_version()},
        }
        require_same(cell.run, read_tables(cell.run), tables)


@contextmanager
def own_interrupts(cell: Cell) -> Generator[None]:
    """Let an interrupt of the run of a cell tell how the comparison is continued."""
    try:
        yield
    except Interrupted as stop:
        stop.args = (f"stopped {cell.label} after step {stop.step}; the same command continues the comparison",)
        raise


def diverged(cell: Cell, error: DivergedError) -> CellResult:
    """Return the result of a cell whose run diverged."""
    problem, curve = portable(str(error)), read_curve(cell.run)
    return CellResult(seed=cell.seed, run=cell.label, status="diverged", problem=problem, curve=curve)


def load_cell(cell: Cell) -> tuple[LanguageModel, dict[str, Any]]:
    """Load the model of a cell to the device where models are measured, and the tables of its run."""
    model, _, tables = load_run(cell.run)
    return model.to(default_device()), tables


def train_cell(
    cell: Cell,
    data: PreparedData,
    listeners: Sequence[Listener],
    keep_freed_memory: bool,
    last_evaluation: LastEvaluation | None = None,
) -> CellResult:
    """Train a cell, or continue it; arguments as in `train_run`."""
    spec = cell.spec
    try:
        with own_interrupts(cell):
            given: dict[str, Any] = {"prepared": data, "keep_freed_memory": keep_freed_memory}
            given |= {"sample": False, "last_evaluation": last_evaluation}
            result = train_run(spec, cell.run, resume=True, listeners=listeners, **given)
    except DivergedError as error:
        return diverged(cell, error)
    if spec.train.eval_tokens:  # of a finished run, which was evaluated on a part of the split
        whole = evaluate_run(cell.run)
        result = dataclasses.replace(result, loss=whole.loss, bits_per_byte=whole.bits_per_byte)
    return CellResult(
        seed=cell.seed,
        run=cell.label,
        loss=result.loss,
        bits_per_byte=result.bits_per_byte,
        train_tokens_per_s=result.tokens_per_s,
        seconds=result.seconds,
        eval_seconds=result.eval_seconds,
        curve=read_curve(cell.run),
    )


def read_curve(run: Path) -> list[list[float]]:
    """Read [tokens seen, validation loss] of each evaluation of a run."""
    lines = [line for line in read_metrics(run) if line["split"] == "val"]
    return [[line["tokens"], line["loss"]] for line in lines if math.isfinite(line["loss"])]


def combine(row: ModelResult, cells: Sequence[CellResult]) -> ModelResult:
    """Return the row of a model with the means over its cells. One that diverged for any seed has no rank."""
    trained, diverged = ([cell for cell in cells if cell.status == status] for status in ("trained", "diverged"))
    averaged: Sequence[CellResult] = [] if diverged else cells
    return dataclasses.replace(
        row,
        status="diverged" if diverged else row.status,
        problem=_problem(cells, trained, diverged) if diverged else row.problem,
        cells=list(cells),
        curve=_mean_curve(trained or cells),
        by_position=mean_losses([cell.by_position for cell in averaged]),
        by_class=mean_losses([cell.by_class for cell in averaged]),
        loss=_mean([cell.loss for cell in averaged]),
        bits_per_byte=_mean([cell.bits_per_byte for cell in averaged]),
        train_tokens_per_s=_mean([cell.train_tokens_per_s for cell in averaged]),
        seconds=_mean([cell.seconds for cell in averaged]),
        eval_seconds=_mean([cell.eval_seconds for cell in averaged]),
    )


def _problem(cells: Sequence[CellResult], trained: Sequence[CellResult], diverged: Sequence[CellResult]) -> str:
    if len(cells) == 1:
        return diverged[0].problem
    text = f"{len(diverged)} of {len(cells)} seeds diverged (seed {diverged[0].seed}: {diverged[0].problem})"
    losses = ", ".join(f"{cell.loss:.3f}" for cell in trained)
    return f"{text}; the others have a loss of {losses}" if trained else text


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _mean_curve(cells: Sequence[CellResult]) -> list[list[float]]:
    """Return the mean of the curves at the points that all of them have."""
    curves = [{point[0]: point[1] for point in cell.curve} for cell in cells]
    shared = [tokens for tokens in curves[0] if all(tokens in curve for curve in curves)]
    return [[tokens, math.fsum(curve[tokens] for curve in curves) / len(curves)] for tokens in shared]


def cell_key(cell: Cell, data: PreparedData, *more: Any) -> str:
    """Return a hash of everything that decides the results of a cell; `more` can be stored as JSON."""
    spec = cell.spec
    facts = [
        [spec.model, configs.to_dict(spec.model_config(data.tokenizer.vocab_size)), spec.data, spec.tokenizer],
        configs.to_dict(spec.train.resolved()),
        [data.corpus.sha256, data.tokenizer.sha256, cell.label],
        list(more),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_cell(cell: Cell, key: str) -> Measured | None:
    """Return the results that a finished cell has left, if they belong to `key` and its run has not been changed."""
    try:
        found = files.parse_json(files.read_bytes(cell.run / CELL_FILE, _MAX_BYTES))
        if found["key"] != key or found["run"] != _fingerprint(cell.run):
            return None
        return Measured(CellResult(**found["cell"]), found["more"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cell(cell: Cell, key: str, measured: Measured) -> None:
    """Keep the results of a finished cell in its run."""
    content = {"key": key, "run": _fingerprint(cell.run), "cell": asdict(measured.cell), "more": dict(measured.more)}
    atomic.write_file(cell.run / CELL_FILE, json.dumps(content, allow_nan=False) + "\n")


def _fingerprint(run: Path) -> str:
    """Return a hash of the settings and the metrics of a run: both change when it is trained further."""
    whole = hashlib.sha256()
    for name in (CONFIG_FILE, METRICS_FILE):
        with files.open_regular(run / name) as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def recorded_config(config: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the settings of a run, the training settings as its config.toml has them, and its precision."""
    tables = read_tables(run)
    train = configs.to_dict(train_config(run, tables))
    return {**config, "train": train, "precision": tables["machine"]["precision"]}
