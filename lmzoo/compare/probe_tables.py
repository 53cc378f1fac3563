"""The results of probes in a comparison as values, as a table of text, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmzoo import humanize
from lmzoo.compare.loss_tables import Table
from lmzoo.compare.results import Results

if TYPE_CHECKING:
    from lmzoo.probing.results import LevelFacts
    from lmzoo.probing.results import Results as ProbeResults

BOTH = ((True, "trained"), (False, "tested"))  # the length of training, and the greater one


def probed(results: Results) -> ProbeResults | None:
    """Return the results of probes, None if there are none."""
    from lmzoo.probing.results import build

    return build(results.probes, "probes") if results.probes.get("cells") else None


def level_name(level: LevelFacts) -> str:
    """Return the probe and the difficulty."""
    return f"{level.probe} {level.difficulty}"


def facts(level: LevelFacts, *, trained: bool) -> tuple[int, float, float]:
    """Return the length of the sequences, and the accuracies at chance and from which on it is solved."""
    if trained:
        return level.trained_length, level.chance_trained, level.solved_trained
    return level.tested_length, level.chance_tested, level.solved_tested


def probe_table(results: Results) -> Table | None:
    """Return a row for each model, and a column for each level and length; None without probes."""
    from lmzoo.probing.table import entry

    found = probed(results)
    if found is None:
        return None
    columns = [(level, trained) for level in found.levels for trained, _ in BOTH]
    headings = [f"{level_name(level)}, {facts(level, trained=trained)[0]}" for level, trained in columns]
    rows: list[tuple[str, ...]] = []
    for model in names(results, found):
        cells = []
        for level, trained in columns:
            _, chance, solved = facts(level, trained=trained)
            cells.append(entry(found.of(model, level), trained, chance, solved))
        rows.append((model, *cells))
    for name, which in (("chance", 1), ("solved", 2)):
        rows.append((name, *(f"{facts(level, trained=trained)[which]:.3f}" for level, trained in columns)))
    return ("model", *headings), rows


def names(results: Results, found: ProbeResults) -> list[str]:
    """Return the models that were probed, in the order of the ranking."""
    probed_models = set(found.models)
    return [model.name for model in [*results.ranked, *results.unranked] if model.name in probed_models]


def probe_note(results: Results) -> str:
    """State how the models were trained on the probes, and what the marks mean."""
    from lmzoo.probing.table import LEGEND

    probes = results.probes
    recipe = "with the recipe that was chosen on the text" if results.tuning else "with the recipe of the text"
    seeds = " Means over the seeds; n/m: solved with n of m seeds." if len(results.seeds) > 1 else ""
    return (
        f"Each model was trained anew on each probe, {probes['steps']:,} steps of {probes['batch_size']} sequences, "
        f"{recipe}: another one may solve more. The number after a probe is the length in tokens. {LEGEND}{seeds}"
    )


def problems(results: Results) -> list[str]:
    """Return a line for each run on a probe that has no accuracy."""
    lines = (
        f"{cell['model']} on {cell['probe']} {cell['difficulty']} {cell['status']}: {humanize.line(cell['problem'])}"
        for cell in results.probes.get("cells", ())
        if cell["problem"]
    )
    return list(dict.fromkeys(lines))


def record_fields(results: Results) -> Mapping[tuple[str, int], dict[str, Any]]:
    """Return the accuracies by model and seed, with keys such as "probe.mqar.easy.trained"."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in results.probes.get("cells", ()):
        values = found.setdefault((cell["model"], cell["seed"]), {})
        for _, length in BOTH:
            values[f"probe.{cell['probe']}.{cell['difficulty']}.{length}"] = cell[f"accuracy_{length}"]
    return found
