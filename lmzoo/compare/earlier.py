"""Keeps the results in a directory from being replaced by a comparison of another text, tokenizer, budget or size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmzoo import files
from lmzoo.compare.results import FILE, SCHEMA, Results
from lmzoo.errors import ConfigError

_MAX_BYTES = 1 << 28
_SHARED = ("batch_size", "context_length", "documents")


def refuse_other_results(folder: Path, now: Results) -> None:
    """Raise `ConfigError` if `folder` has a results.json of a comparison with other settings than `now`.

    `grid.refuse_other_runs` compares only the runs of the same models, so a comparison of other models needs this one.
    Models, seeds, searches, probes and the windows of the evaluation may change, since they change no finished run. A
    file that cannot be read, or is of another version, is replaced.
    """
    try:
        before = files.parse_json(files.read_bytes(folder / FILE, _MAX_BYTES))
        if before["schema"] != SCHEMA:
            return
        old = _facts(before["corpus"], before["tokenizer"], before["budget"], before["match"], before["seed"])
        names = before["corpus"]["name"], before["tokenizer"]["spec"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    new = _facts(now.corpus, now.tokenizer, now.budget, now.match, now.seed)
    shown = {"data": (names[0], now.corpus["name"]), "tokenizer": (names[1], now.tokenizer["spec"])}
    for setting in {**new, **old}:
        if old.get(setting) != new.get(setting):
            theirs, ours = shown.get(setting, (None, None))
            if theirs == ours:  # a text whose content has changed, or a setting that is its own name
                theirs, ours = old.get(setting), new.get(setting)
            raise ConfigError(
                f"{setting}={ours!r}, but out={folder} holds a comparison with {theirs!r}: compare in another directory"
            )


def _facts(
    corpus: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    budget: Mapping[str, Any],
    match: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Return what all runs of a comparison have in common."""
    found = {"data": corpus["sha256"], "tokenizer": tokenizer["sha256"], "seed": seed}
    found |= {name: budget[name] for name in _SHARED}
    same_steps = budget["kind"] in ("steps", "tokens")
    kind, amount = ("steps", budget["steps"]) if same_steps else (budget["kind"], budget["amount"])
    found["budget"] = f"{kind}={amount:.15g}"
    return found | ({"match": f"{match['measure']}={match['target']:.15g}"} if match else {})
