"""Models of equal size in a comparison: `--match params=1M` chooses the widths of each by `lmzoo.matching`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lmzoo import humanize, registry
from lmzoo.compare.results import Results
from lmzoo.matching import MEASURES, matched_config, measured, parse_match
from lmzoo.runs.spec import RunSpec

SAME_SIZE = 1.5  # largest ratio of the numbers of parameters at which models count as equally large


def match_specs(specs: Sequence[RunSpec], match: str, vocab_size: int) -> list[RunSpec]:
    """Return the specs with the widths at which the measure of each model is nearest to the target.

    A model without a width stays as it is. Raises `ConfigError` with the nearest size for a target out of reach.
    """
    found = []
    for spec in specs:
        scaled = registry.model_class(registry.split_name(spec.model)[0].name).config_class.scaled
        if scaled:
            config = matched_config(spec.model, match, **{**spec.config, "vocab_size": vocab_size}).config
            sizes = {name: getattr(config, name) for name in scaled}
            spec = dataclasses.replace(spec, config={**spec.config, **sizes})
        found.append(spec)
    return found


def size_range(results: Results) -> tuple[int, int] | None:
    """Return the least and the largest number of parameters of the ranked models; None if they are equally large."""
    sizes = [model.params for model in results.ranked]
    return (min(sizes), max(sizes)) if sizes and max(sizes) > SAME_SIZE * min(sizes) else None


def match_facts(specs: Sequence[RunSpec], match: str, vocab_size: int) -> dict[str, Any]:
    """Return the measure and the target, and for each model its value and the relative error."""
    measure, target = parse_match(match)
    values = {spec.model: measured(spec.make_model(vocab_size, device="meta"), measure) for spec in specs}
    return {
        "measure": measure,
        "target": target,
        "models": {name: {"value": value, "error": value / target - 1} for name, value in values.items()},
    }


def match_notes(results: Results) -> list[str]:
    """State by how much each model misses the target of `--match`."""
    if not results.match:
        return []
    target, unit = results.match["target"], MEASURES[results.match["measure"]]
    misses = ", ".join(
        f"{name} {humanize.count(found['value'])} ({_percent(found['error'])} %)"
        for name, found in results.match["models"].items()
    )
    return [f"Sizes are matched to {humanize.count(target)} {unit}: {misses}."]


def _percent(error: float) -> str:
    return f"{100 * error:+.0f}" if abs(error) >= 0.1 else f"{100 * error:+.2g}"
