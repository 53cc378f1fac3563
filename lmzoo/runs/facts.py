"""Facts about a run that go with its exported model: its training settings, its text, and its results."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo.data.corpora import corpus_names
from lmzoo.data.hf_dataset import is_streamed, parse_spec
from lmzoo.errors import CheckpointError
from lmzoo.runs.directory import read_tables
from lmzoo.runs.metrics import read_metrics


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run at one of its checkpoints.

    `data` is the name of the text, empty for files of the user, whose names say nothing to others; `on_hub` says that
    it is a data set of the Hugging Face hub. `loss` is in nats per token of the validation split.
    """

    model: str
    train: Mapping[str, Any]
    data: str
    on_hub: bool
    corpus_sha256: str
    tokenizer: str
    step: int
    tokens: int | None = None
    loss: float | None = None
    bits_per_byte: float | None = None


def run_facts(run: Path, step: int) -> RunFacts:
    """Returns the facts of a run at the checkpoint of `step`: the results of its last evaluation up to there.

    Raises `CheckpointError` for a directory that is no run.
    """
    tables = read_tables(run)
    data, spec = tables["data"], str(tables["data"].get("data", ""))
    name, on_hub = _public_name(spec)
    try:
        lines = [line for line in read_metrics(run) if line["step"] <= step]
    except CheckpointError:  # no metrics: the model can be used nevertheless
        lines = list[dict[str, Any]]()
    trained = max((line["tokens"] for line in lines), default=None)
    last = max((line for line in lines if line["split"] == "val"), key=lambda line: line["step"], default={})
    bits = last.get("bits_per_byte")
    return RunFacts(
        model=str(tables["model"].get("name", "")),
        train=tables["train"],
        data=name,
        on_hub=on_hub,
        corpus_sha256=str(data.get("corpus_sha256", "")),
        tokenizer=str(data.get("tokenizer", "")),
        step=step,
        tokens=trained,
        loss=last.get("loss"),
        bits_per_byte=bits if isinstance(bits, (int, float)) else None,
    )


def _public_name(data: str) -> tuple[str, bool]:
    """Returns the name of a text that others know, and True for a data set of the hub; ("", False) for own files."""
    if not is_streamed(data):
        return (data if data in corpus_names() else "", False)
    name = parse_spec(data).name
    is_public = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII) and not os.path.lexists(name)
    return (name, True) if is_public else ("", False)
