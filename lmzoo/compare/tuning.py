"""The searched recipes in the results: the field `tuning` of results.json, and sentences and tables made from it.

The search of the first setting is in `tuning` itself, and the searches of further settings are in its list `then`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo import humanize
from lmzoo.compare.halving import cost, halving_notes
from lmzoo.compare.results import STOPPED, ModelResult, Results
from lmzoo.compare.tune import FINAL, MOST_ADDED, WARMUP, Grid
from lmzoo.data.halves import Half

DIVERGED = "diverged"
TUNED = "Loss on the half of the validation split that chooses, with the first seed; bold: chosen."
_TITLES = {WARMUP: "warm-up steps", FINAL: "final learning rate"}

Search = Mapping[str, Any]  # of one setting: `setting`, `values`, and for each of `models` what was found


def describe(grids: Sequence[Grid], halves: tuple[Half, Half], parts: Sequence[float]) -> dict[str, Any]:
    """Return what is known of the searches before they begin; `parts` are the shares of the training, for halving."""
    sizes = [
        {"documents": half.documents, "tokens": half.split.n_tokens, "bytes": half.split.n_bytes} for half in halves
    ]
    first, *others = (
        {"setting": grid.setting, "values": list(grid.values), "models": dict[str, Any]()} for grid in grids
    )
    found: dict[str, Any] = {**first, "most_added": MOST_ADDED, "selection": sizes[0], "report": sizes[1]}
    if others:
        found["then"] = others
    if len(parts) > 1:
        found["halving"] = {"parts": list(parts), "tokens": 0, "saved_tokens": 0, "saved_share": 0.0}
    return found


def with_found(
    tuning: Mapping[str, Any], found: Mapping[str, Sequence[Mapping[str, Any]]], models: Sequence[ModelResult]
) -> dict[str, Any]:
    """Return `tuning` with what was found for each model, in the order of the settings."""
    first, *others = (
        {**search, "models": {name: stages[number] for name, stages in found.items()}}
        for number, search in enumerate(searches(tuning))
    )
    more: dict[str, Any] = {"then": others} if others else {}
    if "halving" in tuning:
        more["halving"] = {**tuning["halving"], **cost([first, *others], models)}
    return {**first, **more}


def searches(tuning: Mapping[str, Any]) -> list[Search]:
    """Return the search of each setting, in their order; none without `--tune`."""
    return [tuning, *tuning.get("then", ())] if tuning else []


def begun(results: Results) -> list[Search]:
    """Return the searches for which a result is known."""
    return [search for search in searches(results.tuning) if search["models"]]


def halved(results: Results) -> bool:
    """Return True if the searches used successive halving."""
    return "halving" in results.tuning


def setting_title(setting: str) -> str:
    """Return the name of a setting in texts."""
    return _TITLES.get(setting, setting.replace("_", " "))


def shown(setting: str, value: float) -> str:
    """Return a value as text; a final learning rate is a share of the highest one."""
    return f"{100 * value:g} %" if setting == FINAL else f"{value:g}"


def at_ends(results: Results) -> dict[str, list[str]]:
    """Return by setting the models for which a better value may lie beyond what was tried."""
    found = {
        search["setting"]: [name for name, model in search["models"].items() if model["at_end"]]
        for search in searches(results.tuning)
    }
    return {setting: names for setting, names in found.items() if names}


def tune_notes(results: Results) -> list[str]:
    """State how the settings were chosen, and for which models the best value may lie beyond the grid."""
    tuning = results.tuning
    if not tuning:
        return []
    select, report, every = tuning["selection"], tuning["report"], searches(tuning)
    names = ", then the ".join(setting_title(search["setting"]) for search in every)
    numbers = ", then ".join(str(len(search["values"])) for search in every)
    found = [
        f"The {names} of each model {'was' if len(every) == 1 else 'were'} chosen with equal effort: {numbers} values "
        f"for all, and up to {tuning['most_added']} more at each end while the best value lay there, with the first "
        f"seed, by the loss on {select['tokens']:,} tokens of the validation split ({_documents(select)}). All losses "
        f"and n-grams are of the other {report['tokens']:,} tokens ({_documents(report)}). The loss of the first seed "
        "tends to be too low, since the values were chosen with it."
    ]
    if len(every) > 1:
        found.append(
            "The settings were searched one after another, each at the best values of those before it, so a better "
            "combination may exist."
        )
    if halved(results):
        found += halving_notes(tuning["halving"])
    for setting, models in at_ends(results).items():
        found.append(
            f"The best {setting_title(setting)} lies at an end of what was tried, so a better one may lie beyond: "
            f"{', '.join(models)}."
        )
    return found


def tuned_table(search: Search) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Return the headings (the values) and a row for each model: pairs of a cell and whether it is the chosen one."""
    setting, models = search["setting"], search["models"]
    values = sorted({trial["value"] for model in models.values() for trial in model["tried"]})
    rows = []
    for name, model in models.items():
        trials = {trial["value"]: trial for trial in model["tried"]}
        cells = [(_cell(trials.get(value)), value == model["chosen"]) for value in values]
        rows.append([(name, False), *cells])
    return [setting_title(setting), *(shown(setting, value) for value in values)], rows


def _cell(trial: Mapping[str, Any] | None) -> str:
    """Return the loss of a trial; of one that was stopped, with its last step."""
    if trial is None:
        return ""
    if trial["selection_loss"] is None:
        return DIVERGED
    after = f" (step {trial['parts'][-1][0]:,})" if trial["status"] == STOPPED else ""
    return humanize.loss(trial["selection_loss"]) + after


def _documents(half: Mapping[str, Any]) -> str:
    """Return the number of documents; a text of one document is cut in the middle."""
    return f"{half['documents']:,} documents" if half["documents"] > 1 else "one document, or a half of it"
