"""Tests of the cells of recipes: every model with every task, learning rate and seed, and that the models build."""

from __future__ import annotations

import dataclasses

import pytest

from lmzoo.compare.plan import make_specs
from lmzoo.errors import ConfigError
from lmzoo.reproducing.cells import label, make_cells
from lmzoo.reproducing.recipe import Model, find_recipe, list_recipes
from tests.reproducing.small import small


def test_make_cells_combines_models_rates_and_seeds() -> None:
    cells = make_cells(small(learning_rates=[0.03, 0.1], seeds=2))
    assert [(cell.model, cell.seed) for cell in cells] == [
        (f"{model}, learning rate {rate}", seed)
        for seed in (1337, 1338)
        for model in ("recurrence", "table")
        for rate in (0.03, 0.1)
    ]
    first = cells[0]
    assert first.model == label("recurrence", 0.03)
    assert (first.spec.model, first.spec.train.learning_rate, first.spec.train.steps) == ("gru", 0.03, 60)
    assert first.settings["name"] == "gru"
    assert first.spec.model_config(2).context_length == first.level.tested == 64
    assert len({cell.settings_hash for cell in cells}) == 8


def test_make_cells_refuses_a_setting_that_is_wrong() -> None:
    recipe = small(models=[Model(name="recurrence", model="gru", settings={"d_modle": 3})], claims=small().claims[:1])
    with pytest.raises(ConfigError, match="d_modle=3 is not a setting of gru"):
        make_cells(recipe)


@pytest.mark.parametrize("name", list_recipes())
def test_make_cells_builds_every_model_of_a_recipe(name: str) -> None:
    recipe = find_recipe(name)
    cells = make_cells(recipe)  # builds each model on the meta device
    assert len(cells) == len(recipe.models) * len(recipe.tasks) * len(recipe.learning_rates) * recipe.seeds
    recipes_of_training = {
        dataclasses.replace(cell.spec.train, learning_rate=1.0, min_learning_rate=None, seed=1) for cell in cells
    }
    assert len(recipes_of_training) == 1, "all models are trained in the same way"
    assert all(cell.spec.train.precision == "float32" for cell in cells), "the same figures on a GPU"
    if recipe.text is not None:
        specs = make_specs(recipe.text.models, recipe.text.data, "char", recipe.text.settings)
        assert len({spec.train.optimizer for spec in specs}) == 1
