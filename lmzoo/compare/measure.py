"""Measures the cells of a comparison: checks a model, trains its runs, evaluates them, and measures speed and costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lmzoo import configs
from lmzoo.compare.budget import tokens_per_step
from lmzoo.compare.decode_speed import decode_tokens_per_s
from lmzoo.compare.final_evaluation import FinalEvaluation, LastPass
from lmzoo.compare.forecast import Cost, measure_cost, step_seconds
from lmzoo.compare.grid import Cell, Measured, cell_key, diverged, load_cell, read_cell, recorded_config, write_cell
from lmzoo.compare.grid import train_cell as train
from lmzoo.compare.parts import measure_part, read_part
from lmzoo.compare.results import CellResult, ModelResult
from lmzoo.compare.sample import write_sample
from lmzoo.compare.token_classes import TokenClasses
from lmzoo.conformance import ranking_problem, ranking_report
from lmzoo.data.corpora import Corpus
from lmzoo.data.halves import Half
from lmzoo.data.store import open_store
from lmzoo.errors import DivergedError
from lmzoo.hardware import default_device, hardware, versions
from lmzoo.model import LanguageModel
from lmzoo.runs.inputs import PreparedData
from lmzoo.train.carried import ContextUse, evaluate_text
from lmzoo.train.events import Listener
from lmzoo.train.token_losses import TokenLosses


@dataclass(frozen=True)
class Measurer:
    """Measures cells with the text and the options of one comparison.

    `halves` of the validation split (to select on, to report) are given if a setting is tuned: runs are then evaluated
    on the second one. `stride` is given if the windows of the final evaluation overlap; `context` says whether the
    context is reset at each window, or carried. `at_once` is the number of cells that are trained at the same time;
    with more than one, `measure` leaves out the decoding speed, which `add_speeds` measures when all cells are done.
    """

    data: PreparedData
    prompt_ids: Sequence[int]
    listeners: Sequence[Listener]
    keep_freed_memory: bool
    halves: tuple[Half, Half] | None = None
    at_once: int = 1
    stride: int | None = None
    context: ContextUse = "reset"

    @cached_property
    def reported(self) -> PreparedData:
        """The data with the split that is reported as the validation split."""
        assert isinstance(self.data.corpus, Corpus)
        store = self.data.store or open_store(self.data.corpus, self.data.tokenizer)
        if self.halves is not None:
            store = dataclasses.replace(store, val=self.halves[1].split)
        return dataclasses.replace(self.data, store=store)

    @cached_property
    def final(self) -> FinalEvaluation:
        """The evaluation of trained models on the split that is reported."""
        store = self.reported.store
        assert store is not None
        classes = TokenClasses(store.val, store.train.tokens, self.data.tokenizer)
        return FinalEvaluation(store.val, classes, self.stride, self.context)

    def check(self, cell: Cell) -> ModelResult:
        """Return the row of a model before its runs: its costs, and the reason if it fails a check."""
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

    def time(self, cell: Cell) -> Cost:
        """Measure what the steps, evaluations and decoded tokens of a model cost, for the forecast."""
        store = self.reported.store
        assert store is not None
        given: dict[str, Any] = {"stride": self.stride, "context": self.context}
        return measure_cost(cell, self.data.tokenizer.vocab_size, store.val, self.keep_freed_memory, **given)

    def measure(self, cell: Cell, config: Mapping[str, Any] | None = None) -> Measured:
        """Read the results of a cell, or train and measure it.

        `config` (the settings) is given for the first run of a model. The results then include its decoding speed, its
        sample, the losses beyond the training length, and with `halves` the loss on the half that chooses.
        """
        kept = self.kept(cell, config)
        if kept is not None:
            return kept
        last = LastPass()
        same = self.stride is None and not cell.spec.train.eval_tokens  # a run reads what is reported, in these windows
        used = last if same else None
        result = train(cell, self.reported, self.listeners, self.keep_freed_memory, used)
        more: dict[str, Any] = {} if config is None else {"config": recorded_config(config, cell.run)}
        if result.status == "trained":
            model, tables = load_cell(cell)
            precision = tables["machine"]["precision"]
            result = self._evaluate(cell, result, model, precision, last.losses, first=config is not None)
            if config is not None and result.status == "trained":
                if self.at_once == 1:
                    more["decode_tokens_per_s"] = decode_tokens_per_s(model)
                more["sample"] = write_sample(model, self.data.tokenizer, self.prompt_ids, cell.seed)
        return self._keep(cell, Measured(dataclasses.replace(result, at_once=self.at_once), more))

    def kept(self, cell: Cell, config: Mapping[str, Any] | None = None, until: int | None = None) -> Measured | None:
        """Return what `measure`, or with `until` `measure_part`, has left in the run of a cell, if anything."""
        if until is not None:
            return read_part(cell, until, self.part_key(cell))
        found = read_cell(cell, self._key(cell))
        return found if found is not None and (config is None or found.more) else None

    def measure_part(self, cell: Cell, until: int) -> Measured:
        """Read the result of a part of a cell, or train it up to the step `until` and evaluate it on the first half."""
        kept = self.kept(cell, until=until)
        if kept is not None:
            return kept
        assert self.halves is not None
        key, split = self.part_key(cell), self.halves[0].split
        given: dict[str, Any] = {"listeners": self.listeners, "keep_freed_memory": self.keep_freed_memory}
        given |= {"stride": self.stride, "context": self.context}
        return measure_part(cell, until, key, self.reported, split, **given)

    def part_key(self, cell: Cell) -> str:
        """Return a hash of everything that decides the loss after a part of the training, except for the machine.

        A run that has gone on cannot be evaluated again at the end of a part, so the loss is kept when the comparison
        is continued with another number of threads.
        """
        return cell_key(cell, self.data, [half.sha256 for half in self.halves or ()], self.stride, *self._carried)

    @property
    def _carried(self) -> list[str]:
        """Return what a carried context adds to the key of a result; a context that is reset adds nothing."""
        return [self.context] if self.context == "carried" else []

    def add_speeds(self, cell: Cell, measured: Measured) -> Measured:
        """Measure the speeds of a trained cell, now that nothing else runs, unless they are known."""
        if measured.cell.status != "trained" or "decode_tokens_per_s" in measured.more:
            return measured
        more = {**measured.more, "decode_tokens_per_s": decode_tokens_per_s(load_cell(cell)[0])}
        model = cell.spec.make_model(self.data.tokenizer.vocab_size, device=default_device())
        if model.traits.trainable:
            train = None if self.data.store is None else self.data.store.train
            tokens = tokens_per_step(cell.spec, self.data.tokenizer.vocab_size, train)
            more["train_tokens_per_s"] = tokens / step_seconds(model, cell.spec.train, self.keep_freed_memory)
        return self._keep(cell, Measured(measured.cell, more))

    def _keep(self, cell: Cell, measured: Measured) -> Measured:
        if cell.keeps:
            write_cell(cell, self._key(cell), measured)
        return measured

    def _key(self, cell: Cell) -> str:
        halves = [half.sha256 for half in self.halves or ()]
        where = [hardware(default_device()), versions()]
        return cell_key(cell, self.data, list(self.prompt_ids), halves, self.stride, *where, *self._carried)

    def _evaluate(
        self,
        cell: Cell,
        result: CellResult,
        model: LanguageModel,
        precision: str,
        losses: TokenLosses | None,
        *,
        first: bool,
    ) -> CellResult:
        """Add the losses by position and by class; replace the loss if it is of another text, windows or context.

        A loss that is not finite there, after a training that was finite, makes the result one of a run that diverged.
        """
        found = self.final(model, precision, further=first, losses=losses)
        if not math.isfinite(found.loss):
            return diverged(cell, DivergedError(f"the validation loss of the final evaluation is {found.loss}"))
        result = dataclasses.replace(result, by_position=found.by_position, by_class=found.by_class)
        if self.halves is None and self.stride is None and self.context == "reset":
            return result
        selection = self._selection_loss(cell, model, precision) if first else None
        return dataclasses.replace(result, loss=found.loss, bits_per_byte=found.bits_per_byte, selection_loss=selection)

    def _selection_loss(self, cell: Cell, model: LanguageModel, precision: str) -> float | None:
        """Return the loss on the half that chooses: as it was kept with a run of the search, or measured."""
        if self.halves is None:
            return None
        kept = self.kept(cell, until=cell.spec.train.steps)
        if kept is not None:
            return kept.cell.selection_loss
        given: dict[str, Any] = {"stride": self.stride, "context": self.context, "precision": precision}
        return evaluate_text(model, self.halves[0].split, **given).loss
