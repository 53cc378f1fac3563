"""Measures the cells of a comparison: checks a model, trains its runs, evaluates them, and measures speed and costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lmzoo import configs
from lmzoo.compare.budget import tokens_per_step
from lmzoo.compare.decode_speed import decode_tokens_per_s
from lmzoo.compare.grid import Cell, Measured, cell_key, combine, make_cell, read_cell, recorded_config, write_cell
from lmzoo.compare.grid import train_cell as train
from lmzoo.compare.results import CellResult, ModelResult
from lmzoo.compare.tune import Grid, at_end, best_value, search, with_value
from lmzoo.conformance import ranking_problem, ranking_report
from lmzoo.data.halves import Half
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.hardware import hardware, versions
from lmzoo.model import LanguageModel
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.saved import load_run
from lmzoo.train.evaluate import evaluate
from lmzoo.train.events import Listener, NoteEvent, fan_out

SAMPLE_TOKENS = 300
SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True)
class Measurer:
    """Measures cells with the text and the options of one comparison.

    `halves` of the validation split (to select on, to report) are given if a setting is tuned.
    """

    data: PreparedData
    prompt_ids: Sequence[int]
    listeners: Sequence[Listener]
    keep_freed_memory: bool
    halves: tuple[Half, Half] | None = None

    def check(self, cell: Cell) -> ModelResult:
        """Return the row of a model without runs: its costs, and the reason if it fails a check."""
        blank = cell.spec.make_model(self.data.tokenizer.vocab_size, device="meta")
        report = ranking_report(cell.spec.model)
        train = None if self.data.store is None else self.data.store.train
        per_step = tokens_per_step(cell.spec, self.data.tokenizer.vocab_size, train)
        row = ModelResult(
            name=cell.model,
            steps=cell.spec.train.steps,
            tokens=round(cell.spec.train.steps * per_step),
            params=blank.num_params(),
            params_non_embedding=blank.num_params(embedding=False),
            flops_per_token=blank.flops_per_token(blank.config.context_length),
            state_bytes=blank.state_bytes(blank.config.context_length),
            run=cell.label,
            checks={result.name: result.passed for result in report.results},
            config={"model": configs.to_dict(blank.config), "train": configs.to_dict(cell.spec.train.resolved())},
        )
        problem = ranking_problem(cell.spec.model, report)
        return dataclasses.replace(row, status="failed", problem=problem) if problem else row

    def add(self, row: ModelResult, cell: Cell) -> ModelResult:
        """Train a cell; returns the row with it. The first cell of a row also gives its speed, sample and settings."""
        measured = self._measure(cell, None if row.cells else row.config)
        if not row.cells:
            row = dataclasses.replace(row, **measured.more, run=cell.label)
        return combine(row, [*row.cells, measured.cell])

    def tune(self, first: Cell, grid: Grid) -> tuple[Cell, dict[str, Any]]:
        """Train a model with the values of a grid; returns the cell with the best one, and what was tried."""
        emit, folder = fan_out(self.listeners), first.run.parent.parent
        tried: dict[float, CellResult] = {}

        def cell_of(value: float) -> Cell:
            return make_cell(folder, with_value(first.spec, grid.setting, value), first.spec, first.model)

        def loss(value: float) -> float:
            emit(NoteEvent(f"{first.model}: training with {grid.setting}={value:g}"))
            found = self._measure(cell_of(value), None).cell
            tried[value] = found
            return math.inf if found.selection_loss is None else found.selection_loss

        losses = search(grid, loss)
        chosen = best_value(losses)
        curve = [
            {
                "value": value,
                "run": cell.run,
                "status": cell.status,
                "selection_loss": cell.selection_loss,
                "loss": cell.loss,
            }
            for value, cell in sorted(tried.items())
        ]
        return cell_of(chosen), {"chosen": chosen, "at_end": at_end(losses), "tried": curve}

    def _measure(self, cell: Cell, config: Mapping[str, Any] | None) -> Measured:
        """Read the results of a cell, or make them. With `config`, the settings, they include speed and sample."""
        halves = [half.sha256 for half in self.halves or ()]
        key = cell_key(cell, self.data, list(self.prompt_ids), halves, hardware(torch.device("cpu")), versions())
        kept = read_cell(cell, key)
        if kept is not None and (config is None or kept.more):
            return kept
        result = train(cell, self.data, self.listeners, self.keep_freed_memory)
        more: dict[str, Any] = {} if config is None else {"config": recorded_config(config, cell.run)}
        if result.status == "trained" and (config is not None or self.halves):
            model, _, tables = load_run(cell.run)
            if self.halves:
                result = self._on_halves(result, model, tables["machine"]["precision"])
            if config is not None:
                more["decode_tokens_per_s"] = decode_tokens_per_s(model)
                more["sample"] = _sample(model, self.data.tokenizer, self.prompt_ids, cell.seed)
        measured = Measured(result, more)
        if cell.keeps:
            write_cell(cell, key, measured)
        return measured

    def _on_halves(self, result: CellResult, model: LanguageModel, precision: str) -> CellResult:
        """Replace the loss on the whole split by those on its halves."""
        assert self.halves is not None
        select, report = (evaluate(model, half.split, precision=precision) for half in self.halves)
        return dataclasses.replace(
            result, loss=report.loss, bits_per_byte=report.bits_per_byte, selection_loss=select.loss
        )


def _sample(model: LanguageModel, tokenizer: Tokenizer, prompt_ids: Sequence[int], seed: int) -> str:
    """Generate one continuation of the prompt."""
    idx_BT = torch.tensor([list(prompt_ids)], device=model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    out_BT = model.generate(idx_BT, SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, generator=generator)
    return tokenizer.decode(out_BT[0, len(prompt_ids) :].tolist())
