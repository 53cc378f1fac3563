"""The protocol of the zoo's comparison, and the results of each family as registry/FAMILY/results.json holds them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmzoo.compare.records import load_results
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.statistics import mean_interval

PRESET, DATA, TOKENIZER = "1m", "pydocs", "byte"
SEEDS = 3
# Muon was the best optimizer of each family that has matrices, in the search of scripts/tune_presets.
BUDGET: Mapping[str, int | str] = {
    "steps": 300,
    "batch_size": 16,
    "context_length": 128,
    "eval_every": 300,
    "optimizer": "muon",
}
TUNE = "learning_rate=0.01,0.02,0.04"
SCHEMA = 3
_STEP = int(BUDGET["batch_size"]) * int(BUDGET["context_length"])
_EXPECTED = {name: value for name, value in BUDGET.items() if name != "eval_every"}
_EXPECTED |= {"tokens": int(BUDGET["steps"]) * _STEP, "seeds": SEEDS}


def is_current(found: Mapping[str, Any] | None) -> bool:
    """Return True for results of a family that were made by this protocol."""
    return found is not None and found.get("schema") == SCHEMA and found["budget"] == _EXPECTED


def family_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of each family whose seeds are all done in the comparison `folder`."""
    results = load_results(folder)
    return {
        model.name.partition(".")[0]: _figures(results, model)
        for model in results.models
        if model.status != "failed" and len(model.cells) == len(results.seeds)
    }


def _figures(results: Results, model: ModelResult) -> dict[str, Any]:
    losses = [cell.loss for cell in model.cells if cell.loss is not None]
    figures: dict[str, Any] = {
        "schema": SCHEMA,
        "preset": PRESET,
        "status": "trained" if model.status == "ranked" else model.status,
        "problem": model.problem,
        "loss": model.loss,  # nats per token, the mean over the seeds, on one half of the validation split
        "losses": losses,  # of each seed
        "bits_per_byte": model.bits_per_byte,
    }
    if len(losses) > 1:
        mean = mean_interval(np.asarray(losses))
        scale = (model.bits_per_byte or 0.0) / mean.mean
        figures["bits_per_byte_interval"] = [mean.low * scale, mean.high * scale]  # 95 %
    tuned = results.tuning["models"].get(model.name)  # None for a model without training steps
    if tuned is not None:
        tried = {f"{trial['value']:g}": trial["selection_loss"] for trial in tuned["tried"]}
        figures["learning_rate"] = {"chosen": tuned["chosen"], "at_end": tuned["at_end"], "tried": tried}
    return figures | {
        "params": model.params,
        "flops_per_token": model.flops_per_token,
        "state_bytes": model.state_bytes,
        "seconds": sum((cell.seconds or 0.0) + (cell.eval_seconds or 0.0) for cell in model.cells),
        "runs_at_once": max(cell.at_once for cell in model.cells),
        "budget": _budget(results, model),
        "precision": model.config.get("precision"),  # as resolved on that machine; None for a model without training
        "corpus": {name: results.corpus[name] for name in ("name", "sha256")},
        "tokenizer": TOKENIZER,
        "hardware": dict(results.hardware),
        "versions": dict(results.versions),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def _budget(results: Results, model: ModelResult) -> dict[str, Any]:
    """Return what a row was trained for, and with which optimizer."""
    shared = {name: results.budget[name] for name in ("steps", "batch_size", "context_length", "tokens")}
    return {**shared, "optimizer": model.config["train"]["optimizer"], "seeds": len(results.seeds)}
