"""Tests of verdicts: which figure a claim is judged by, and whether it is in the band."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lmzoo.errors import ConfigError
from lmzoo.probing.results import CellResult, Results
from lmzoo.reproducing.cells import label
from lmzoo.reproducing.recipe import Claim
from lmzoo.reproducing.verdicts import FILE, Reproduction, Verdict, judge, recipe_of, to_json, write
from tests.compare.example import example, model
from tests.reproducing.small import small, text_of

TASK = "parity to 64"


def cell(name: str, rate: float, seed: int, tested: float | None) -> CellResult:
    return CellResult(
        model=label(name, rate),
        probe="parity",
        difficulty=TASK,
        seed=seed,
        status="diverged" if tested is None else "trained",
        accuracy_tested=tested,
    )


def verdicts(*cells: CellResult) -> list[Verdict]:
    return judge(small(learning_rates=[0.01, 0.03], seeds=2), Results(levels=[], cells=cells), None)


def test_judge_takes_the_best_run_and_shows_the_seeds_of_the_best_rate() -> None:
    recurrence, table = verdicts(
        cell("recurrence", 0.01, 1, 1.0),
        cell("recurrence", 0.01, 2, 0.5),
        cell("recurrence", 0.03, 1, 0.9),
        cell("recurrence", 0.03, 2, 0.8),
        cell("table", 0.01, 1, 0.61),
        cell("table", 0.01, 2, 0.5),
    )
    assert (recurrence.value, recurrence.learning_rate, recurrence.seeds) == (1.0, 0.03, [0.9, 0.8])
    assert recurrence.inside
    assert (table.value, table.low, table.high, table.inside) == (0.61, 0.4, 0.6, False)


@pytest.mark.parametrize(("value", "inside"), [(0.39, False), (0.4, True), (0.6, True), (0.601, False)])
def test_judge_includes_the_ends_of_a_band(value: float, inside: bool) -> None:
    assert verdicts(cell("table", 0.01, 1, value))[1].inside == inside


def test_judge_finds_no_figure_outside() -> None:
    for found in (verdicts(), verdicts(cell("recurrence", 0.01, 1, None), cell("table", 0.01, 1, None))):
        assert [(verdict.value, verdict.inside, verdict.seeds) for verdict in found] == [(None, False, [])] * 2


def test_judge_takes_the_mean_difference_of_losses_by_seed() -> None:
    from lmzoo.compare.results import CellResult as Run

    rows = [
        model(name, 1.0, cells=[Run(seed=seed, run="", loss=loss) for seed, loss in losses.items()])
        for name, losses in (("gru", {1: 1.5, 2: 1.25, 3: 1.0}), ("lstm", {1: 1.75, 2: 1.75}))
    ]
    claim = Claim(text="no worse", model="gru", minus="lstm", high=0.0)
    recipe = small(text=text_of("sea.txt"), claims=[claim])
    compared = dataclasses.replace(example(), models=rows)
    (verdict,) = judge(recipe, Results(levels=[], cells=[]), compared)
    assert (verdict.value, verdict.seeds, verdict.inside) == (-0.375, [-0.25, -0.5], True)
    assert (verdict.low, verdict.high) == (None, 0.0)
    (missing,) = judge(recipe, Results(levels=[], cells=[]), dataclasses.replace(example(), models=rows[:1]))
    assert (missing.value, missing.inside) == (None, False)


def test_reproduction_holds_if_it_is_complete_and_all_figures_are_inside(tmp_path: Path) -> None:
    good, bad = verdicts(cell("recurrence", 0.01, 1, 1.0), cell("table", 0.01, 1, 0.9))
    whole = Reproduction(recipe="small", paper="", claim="", verdicts=[good])
    assert whole.holds
    assert not dataclasses.replace(whole, complete=False).holds
    assert not dataclasses.replace(whole, verdicts=[good, bad]).holds
    write(whole, tmp_path)
    assert (tmp_path / FILE).read_text() == to_json(whole)
    content = json.loads(to_json(whole))
    assert (content["schema"], content["holds"], content["verdicts"][0]["high"]) == (1, True, None)
    assert recipe_of(tmp_path) == "small"


@pytest.mark.parametrize(
    ("content", "message"), [("{", "names no recipe"), ("[]", "names no recipe"), ("{}", "recipe")]
)
def test_recipe_of_refuses_other_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError, match=message):
        recipe_of(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        recipe_of(tmp_path / "nowhere")
