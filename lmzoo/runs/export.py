"""Exports the model of a run or of a saved model as a Hugging Face directory, with a model card."""

from __future__ import annotations

from pathlib import Path

import torch

from lmzoo import arguments
from lmzoo.hf.directory import Export, Progress, export
from lmzoo.runs.facts import run_facts
from lmzoo.runs.saved import is_run, load_model_and_tokenizer, run_of
from lmzoo.storage import checkpoints
from lmzoo.storage.models import moved


def export_run(
    source: str | Path,
    path: str | Path,
    *,
    model_type: str | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
    license: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Writes the model of a run (its newest valid checkpoint), of a checkpoint or of a saved model to `path`.

    The weights are cast to `dtype`, except those that must stay float32. The other arguments are those of
    `lmzoo.hf.export`; for a run, the model card lists its settings and results. Raises an `LmzooError` of one line,
    with nothing written.
    """
    place = arguments.path("source", source)
    run, facts = run_of(place), None
    if is_run(run):
        place = checkpoints.find(run if place.name == checkpoints.FOLDER else place).path
        step = checkpoints.step_of(place)
        facts = run_facts(run, step) if step is not None else None
    model, found = load_model_and_tokenizer(place, tokenizer)
    model = moved(model, dtype, None)
    return export(model, path, tokenizer=found, model_type=model_type, facts=facts, license=license, progress=progress)
