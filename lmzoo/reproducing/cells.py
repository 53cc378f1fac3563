"""Makes the cells of a recipe, for the engine of `lmzoo probe`."""

from __future__ import annotations

import dataclasses

from lmzoo.probing.plan import Cell, make_level, with_seeds
from lmzoo.reproducing.recipe import Recipe


def label(model: str, learning_rate: float) -> str:
    """Returns the name of a model with a learning rate in probes.json."""
    return f"{model}, learning rate {learning_rate:g}"


def make_cells(recipe: Recipe) -> list[Cell]:
    """Make a cell for each model, task, learning rate and seed. Raises an `LmzooError` for a setting that is wrong."""
    cells: list[Cell] = []
    for task in recipe.tasks:
        probe = task.make_probe()
        for model in recipe.models:
            for rate in recipe.learning_rates:
                settings = {**recipe.settings, **model.settings, "train.learning_rate": rate}
                (cell,) = make_level([model.model], probe, task.name, settings)
                cells.append(dataclasses.replace(cell, model=label(model.name, rate)))
    return with_seeds(cells, recipe.seeds) if cells else []
