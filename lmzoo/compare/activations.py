"""Reads the activation statistics of each model from the logs of its runs, as rows for the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmzoo.compare.results import Results
from lmzoo.errors import LmzooError
from lmzoo.roles import ROLES
from lmzoo.runs.metrics import read_metrics

Row = Mapping[str, Any]
ByModel = Mapping[str, Sequence[Row]]


@dataclass(frozen=True, kw_only=True)
class Activations:
    """The rows of each model; a model without a statistic is left out of it.

    `residual_rms` has `tokens` seen in training, `block` (0: before the first one) and `rms`; `largest_logit` has
    `tokens` and `logit`; `state_norm` has `position` and `norm`, of the last evaluation; `router_load` has `tokens`,
    and of the least and the most used expert of all layers the loads `least` and `most` and the layers (from 1);
    `grad_norms` has `tokens`, the `role` of parameters (`lmzoo.roles`) and the `norm` of their gradient.
    """

    residual_rms: ByModel = field(default_factory=dict)
    largest_logit: ByModel = field(default_factory=dict)
    state_norm: ByModel = field(default_factory=dict)
    router_load: ByModel = field(default_factory=dict)
    grad_norms: ByModel = field(default_factory=dict)


def read_activations(results: Results, folder: Path) -> Activations:
    """Read the logs of the first run of each model in `folder`.

    A model without a run there is left out, as is one that failed a check, and one that was evaluated only once where
    the rows are over its training.
    """
    found: dict[str, dict[str, list[Row]]] = {name: {} for name in _ROWS}
    for model in [*results.ranked, *results.unranked]:
        try:
            lines = read_metrics(folder / model.run) if model.run and model.status != "failed" else []
        except LmzooError:
            continue
        logged = [line for line in lines if line["split"] == "val" and isinstance(line.get("activations"), Mapping)]
        for name, rows_of in _ROWS.items():
            by_line = [rows_of(line, line["activations"].get(name)) for line in logged]
            if name == "state_norm":
                by_line = [rows for rows in by_line if len(rows) > 1][-1:]
            rows = [row for rows in by_line for row in rows]
            if rows and (name == "state_norm" or len({row["tokens"] for row in rows}) > 1):
                found[name][model.name] = rows
    return Activations(**found)


def _residual_rms(line: Mapping[str, Any], values: object) -> list[Row]:
    """Return a row for each block of a line of the log; values that have no logarithm are left out."""
    return [
        {"tokens": line["tokens"], "block": block, "rms": value}
        for block, value in enumerate(values if isinstance(values, list) else [])
        if _is_positive(value)
    ]


def _largest_logit(line: Mapping[str, Any], value: Any) -> list[Row]:
    return [{"tokens": line["tokens"], "logit": value}] if _is_positive(value) else []


def _state_norm(_: Mapping[str, Any], values: object) -> list[Row]:
    return [{"position": position, "norm": norm} for position, norm in _pairs(values) if position >= 1 and norm > 0]


def _router_load(line: Mapping[str, Any], values: object) -> list[Row]:
    layers = [(least, most, layer) for layer, (least, most) in enumerate(_pairs(values), 1)]
    if not layers:
        return []
    least, _, least_layer = min(layers, key=lambda layer: layer[0])
    _, most, most_layer = max(layers, key=lambda layer: layer[1])
    ends = {"least": least, "least_layer": least_layer, "most": most, "most_layer": most_layer}
    return [{"tokens": line["tokens"], **ends}]


def _grad_norms(line: Mapping[str, Any], values: object) -> list[Row]:
    """Return a row for each role; a norm of zero has no logarithm and is left out."""
    norms = values if isinstance(values, Mapping) else {}
    found = [(role, norms.get(role)) for role in ROLES]
    return [{"tokens": line["tokens"], "role": role, "norm": norm} for role, norm in found if _is_positive(norm)]


_ROWS: Mapping[str, Callable[[Mapping[str, Any], Any], list[Row]]] = {
    "residual_rms": _residual_rms,
    "largest_logit": _largest_logit,
    "state_norm": _state_norm,
    "router_load": _router_load,
    "grad_norms": _grad_norms,
}


def _pairs(values: object) -> list[tuple[float, float]]:
    """Return the pairs of two numbers in a list."""
    pairs = [pair for pair in values if isinstance(pair, list) and len(pair) == 2] if isinstance(values, list) else []
    return [(first, second) for first, second in pairs if _is_number(first) and _is_number(second)]


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
