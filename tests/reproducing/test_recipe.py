"""Tests of recipes: what a file may say, what is refused, and that the recipes of the package are whole."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from lmzoo.data.probes.groups import CyclicGroup
from lmzoo.errors import ConfigError
from lmzoo.reproducing.recipe import Task, find_recipe, list_recipes, parse_recipe
from tests.reproducing.small import TOML, small


def test_parse_recipe_reads_every_table() -> None:
    recipe = small()
    assert (recipe.name, recipe.paper, recipe.learning_rates, recipe.seeds) == ("small", "nobody 2026", [0.03], 1)
    assert [model.name for model in recipe.models] == ["recurrence", "table"]
    assert recipe.models[0].settings == {"d_model": 16, "n_layers": 1}
    assert (recipe.claims[0].low, recipe.claims[0].high) == (0.99, math.inf)
    assert recipe.text is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minutes = 1", "minutes = 0", "minutes=0 must be a positive integer"),
        ("minutes = 1", "", "minutes must be given to Recipe"),
        ("minutes = 1", "minutes = ", "cannot be read as TOML"),
        ("minutes = 1", 'minutes = 1\nnote = ""', "note='' is not a setting of Recipe"),
        ("learning_rates = [0.03]", "learning_rates = []", "learning_rates and claims must not be empty"),
        ('name = "table"', 'name = "recurrence"', "models: two of them have the same name"),
        (
            'model = "table"\ntask',
            'model = "tabel"\ntask',
            "model='tabel' of a claim is not in the recipe; did you mean",
        ),
        ("high = 0.6", "high = 0.3", "low=0.4 must be at most high=0.3"),
        ('task = "parity to 64"\nlow = 0.99', "low = 0.99", "one of task and minus must be given"),
        ('task = "parity to 64"\nlow = 0.99', 'task = "s5"\nlow = 0.99', "task='s5' of a claim is not in the recipe"),
    ],
)
def test_parse_recipe_refuses_what_is_wrong(old: str, new: str, message: str) -> None:
    assert old in TOML
    with pytest.raises(ConfigError, match=f"^recipe small: .*{re.escape(message)}"):
        parse_recipe("small", TOML.replace(old, new, 1))


def test_task_make_probe_changes_the_easy_level() -> None:
    probe = Task(name="modulo 7", probe="addition", trained=8, tested=20, fields={"order": 7}).make_probe()
    level = probe.levels["modulo 7"]
    assert (level.task, level.trained, level.tested) == (CyclicGroup(7), 8, 20)
    assert list(probe.levels) == ["modulo 7"]
    with pytest.raises(ConfigError, match="modulus=7 is not a field of addition"):
        Task(name="x", probe="addition", trained=8, tested=20, fields={"modulus": 7}).make_probe()
    with pytest.raises(ConfigError, match="did you mean 'parity'"):
        Task(name="x", probe="pairity", trained=8, tested=20).make_probe()


@pytest.mark.parametrize("name", list_recipes())
def test_find_recipe_gives_what_the_guide_says(name: str) -> None:
    recipe = find_recipe(name)
    guide = (Path(__file__).parents[2] / "docs" / "probes.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {recipe.claim} | {recipe.size} | {recipe.minutes} |" in guide


def test_find_recipe_knows_those_of_the_package() -> None:
    assert list_recipes() == ["mqar", "olmo-hybrid-small", "parity"]
    for name in list_recipes():
        recipe = find_recipe(name)
        assert "arXiv" in recipe.paper
        assert all(part.endswith(".") for part in (recipe.claim, recipe.size, recipe.method))
        named = {claim.model for claim in recipe.claims if claim.task}
        assert named == {model.name for model in recipe.models}, "a model without a claim is trained for nothing"
        assert {claim.task for claim in recipe.claims} - {""} == {task.name for task in recipe.tasks}
    with pytest.raises(ConfigError, match="name='parrity' is not a recipe; did you mean 'parity'"):
        find_recipe("parrity")
