"""Tests the command `lmzoo reproduce`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmzoo.cli.reproduce import complete_recipes
from lmzoo.cli.reproduce import reproduce as command
from lmzoo.reproducing import recipe as module
from lmzoo.reproducing.recipe import list_recipes
from tests.cli.commands import Command
from tests.reproducing.small import TOML


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes in the place of the package's: one that holds, and one that does not."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    quick = TOML.replace("steps = 60", "steps = 2").replace("low = 0.99", "low = 0.0")
    (recipes / "quick.toml").write_text(quick)
    (recipes / "wrong.toml").write_text(quick.replace("low = 0.0", "low = 0.999"))
    monkeypatch.setattr(module, "_FOLDER", recipes)
    return tmp_path


def test_reproduce_prints_a_table_and_json(lmzoo: Command, folder: Path) -> None:
    out = folder / "out"
    result = lmzoo("reproduce", "quick", "--out", out, "--workers", "1")
    assert result.code == 0, result.err
    assert result.out.splitlines()[0].split() == ["claim", "value", "seeds", "expected", "verdict"]
    assert "quick: 2 of 2 figures inside their bands" in result.out
    assert "parity parity to 64, recurrence, learning rate 0.03, seed 1337: accuracy 0." in result.err
    again = lmzoo("reproduce", "quick", "--out", out, "--json", "--workers", "1")
    assert again.code == 0
    assert json.loads(again.out) == json.loads((out / "reproduced.json").read_text())
    assert "checking" not in again.err


def test_reproduce_exits_with_1_if_a_figure_is_outside(lmzoo: Command, folder: Path) -> None:
    result = lmzoo("reproduce", "wrong", "--out", folder / "out", "--workers", "1")
    assert result.code == 1
    assert "wrong: 1 of 2 figures inside their bands" in result.out


def test_reproduce_lists_the_recipes(lmzoo: Command) -> None:
    listed = lmzoo("reproduce")
    assert listed.code == 0
    assert [line for line in listed.out.splitlines() if line and not line.startswith(" ")] == list_recipes()
    recipes = json.loads(lmzoo("reproduce", "--json").out)
    assert [recipe["name"] for recipe in recipes] == list_recipes()
    assert set(recipes[0]) == {"name", "paper", "claim", "size", "method", "minutes"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mqqar"], "name='mqqar' is not a recipe; did you mean 'mqar'?"),
        (["m\x1b[2J"], r"m\x1b[2J"),
        (["mqar", "--workers", "0"], "workers=0 must be an integer in [1, "),
        (["mqar", "--device", "tpu"], "device='tpu' must be 'cpu' or 'cuda'"),
        ([], "needs the name of a recipe: lmzoo reproduce lists them"),
    ],
)
def test_reproduce_refuses_bad_input_in_one_line(
    lmzoo: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = lmzoo("reproduce", *arguments, "--out", tmp_path / "out")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_reproduce_completes_the_name_of_a_recipe() -> None:
    with command.make_context("reproduce", []) as context:
        found = [item.value for item in complete_recipes(context, command.params[0], "p")]
    assert found == ["parity"]
