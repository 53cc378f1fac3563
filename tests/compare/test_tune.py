"""Tests the search of the learning rate: the same grid for all, widened at both ends, chosen and reported apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare import Results, compare, parts
from lmzoo.compare.notes import notes
from lmzoo.compare.plan import make_specs
from lmzoo.compare.report import html
from lmzoo.compare.table import markdown
from lmzoo.compare.tune import (
    FINAL,
    MOST_ADDED,
    RATE,
    WARMUP,
    Grid,
    at_end,
    best_value,
    complete,
    next_value,
    parse_tune,
    with_most_warmup,
    with_values,
)
from lmzoo.data.corpora import load_corpus
from lmzoo.data.halves import validation_halves
from lmzoo.errors import ConfigError, DivergedError
from lmzoo.runs.saved import load_run
from lmzoo.train.evaluate import evaluate
from lmzoo.train.events import Event, StepEvent

SETTINGS = {"steps": 20, "batch_size": 4, "context_length": 16, "eval_every": 20}
NAMES, TUNE = ["bigram", "mlp", "ngram"], "learning_rate=0.1,0.03"
GRID = Grid("learning_rate", (1.0, 2.0, 4.0))


def search(measure: Callable[[float], float], grid: Grid = GRID) -> dict[float, float]:
    losses: dict[float, float] = {}
    while (value := next_value(grid, losses)) is not None:
        losses[value] = measure(value)
    return losses


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path, str]:
    folder = tmp_path_factory.mktemp("documents")
    for n in range(60):
        (folder / f"{n:03}.txt").write_text(f"{n} cats sat on {n % 9} mats, and {n % 5} dogs did not.\n" * 3)
    out = tmp_path_factory.mktemp("tuned") / "out"
    return compare(NAMES, str(folder), out, tune=TUNE, seeds=2, settings=SETTINGS), out, str(folder)


def test_parse_tune() -> None:
    rates = Grid("learning_rate", (0.0025, 0.005, 0.01))
    assert parse_tune("learning_rate") == [rates]
    assert parse_tune(TUNE) == [Grid("learning_rate", (0.03, 0.1))]
    final = Grid("min_learning_rate", (0.0, 0.1, 0.3), (0.0, 1.0))
    assert parse_tune("min_learning_rate,warmup_steps, learning_rate") == [rates, Grid("warmup_steps", ()), final]
    assert parse_tune(["warmup_steps=20,0,1k", "learning_rate"]) == [rates, Grid("warmup_steps", (0.0, 20.0, 1000.0))]
    assert parse_tune("min_learning_rate=100%,0%,2.5%")[0].values == (0.0, 0.025, 1.0)
    for text, message in (
        ("learning_rte", "'learning_rte' cannot be tuned; did you mean 'learning_rate'"),
        ("learning_rate=0.1", "needs two different values at least"),
        ("learning_rate=0.1,0.1", "needs two different values at least"),
        ("learning_rate=0.1,x", "'x' must be a number above 0"),
        ("learning_rate=", "'' must be a number above 0"),
        ("learning_rate,steps", "'steps' cannot be tuned"),
        ("learning_rate=0.1,0.3,warmup_steps", "'warmup_steps' must be a number above 0"),
        ("learning_rate,learning_rate", "learning_rate is named twice"),
        (["learning_rate", "learning_rate=1,2"], "learning_rate is named twice"),
        ("warmup_steps=1.5,3", "'1.5' must be a whole number of steps"),
        ("warmup_steps=-1,3", "'-1' must be a number above 0"),
        ("warmup_steps=5", "needs two different values at least, as in 'warmup_steps=50,200'"),
        ("min_learning_rate=0,0.001", "'0' must be a share of the learning rate from 0% to 100%, as in 10%"),
        ("min_learning_rate=10%,101%", "'101%' must be a share"),
        ("", "'' cannot be tuned"),
        (3, "tune=3: '' cannot be tuned"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_tune(text)  # type: ignore[arg-type]


def test_complete_gives_the_warm_up_shares_of_the_fewest_steps() -> None:
    grids = parse_tune("learning_rate,warmup_steps")
    assert [grid.values for grid in complete(grids, 2000)] == [(0.0025, 0.005, 0.01), (50.0, 100.0, 200.0)]
    assert complete(grids, 20)[1].values == (1.0, 2.0)
    assert complete(grids[:1], 1) == grids[:1]
    with pytest.raises(ConfigError, match="tune='warmup_steps': 12 steps are too few for the default values"):
        complete(grids, 12)


def test_with_most_warmup_limits_the_warm_up_alone() -> None:
    rates, warmup = with_most_warmup(parse_tune(["learning_rate", "warmup_steps=5,10"]), 10)
    assert (rates.limits, warmup.limits) == ((0.0, math.inf), (0.0, 10))
    with pytest.raises(ConfigError, match="tune: warmup_steps=10 must be at most 9: the warm-up ends"):
        with_most_warmup([warmup], 9)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (2.0, [1.0, 2.0, 4.0]),  # inside: nothing is added
        (0.5, [0.25, 0.5, 1.0, 2.0, 4.0]),
        (8.0, [1.0, 2.0, 4.0, 8.0, 16.0]),
        (0.01, [0.25, 0.5, 1.0, 2.0, 4.0]),  # the limit
        (99.0, [1.0, 2.0, 4.0, 8.0, 16.0]),
    ],
)
def test_next_value_widens_the_grid_while_the_best_lies_at_an_end(best: float, tried: list[float]) -> None:
    losses = search(lambda value: abs(math.log(value / best)))
    assert sorted(losses) == tried
    assert list(losses)[:3] == [1.0, 2.0, 4.0], "the whole grid first: equal effort"
    assert at_end(GRID, losses) == (best in (0.01, 99.0))


def test_next_value_takes_a_diverged_run_as_infinitely_bad() -> None:
    losses = search(lambda value: math.inf if value > 1.5 else 3.0 - value)
    assert sorted(losses) == [0.25, 0.5, 1.0, 2.0, 4.0][1:]
    assert best_value(losses) == 1.0
    nothing = search(lambda value: math.inf)
    assert sorted(nothing) == [0.25, 0.5, 1.0, 2.0, 4.0], "lower rates are tried"
    assert MOST_ADDED == 2


@pytest.mark.parametrize(
    ("values", "limits", "best", "tried", "open_end"),
    [
        ((4, 8), (0, 1000), 0, [1, 2, 4, 8], True),
        ((1, 4), (0, 1000), 0, [0, 1, 4], False),  # no steps between: none at all
        ((0, 8), (0, 1000), 0, [0, 8], False),  # nothing is below 0
        ((0, 8), (0, 1000), 99, [0, 8, 16, 32], True),  # a factor of 2, since 0 has none
        ((20, 30), (0, 1000), 99, [20, 30, 45, 68], True),  # whole numbers
        ((20, 30), (0, 50), 99, [20, 30, 45, 50], False),  # as long as it may be
    ],
)
def test_next_value_stays_within_the_limits_of_a_warm_up(
    values: tuple[float, ...], limits: tuple[float, float], best: float, tried: list[float], open_end: bool
) -> None:
    grid = Grid(WARMUP, values, limits)
    losses = search(lambda value: abs(value - best), grid)
    assert sorted(losses) == tried
    assert at_end(grid, losses) == open_end


def test_next_value_gives_no_final_rate_above_the_highest() -> None:
    (grid,) = parse_tune("min_learning_rate")
    assert sorted(search(lambda value: -value, grid)) == [0.0, 0.1, 0.3, 0.9, 1.0]
    assert sorted(search(lambda value: value, grid)) == [0.0, 0.1, 0.3]
    assert not at_end(grid, {0.3: 2.0, 1.0: 1.0})


def test_with_values_keeps_the_shape_of_the_schedule() -> None:
    (spec,) = make_specs(["bigram"], "x.txt", "char", {"learning_rate": 0.01, "min_learning_rate": 0.002})
    train = with_values(spec, {RATE: 0.001}).train
    assert (train.learning_rate, train.min_learning_rate) == (0.001, 0.0002)
    (spec,) = make_specs(["bigram"], "x.txt", "char", {"min_learning_rate": 0.0})
    assert with_values(spec, {RATE: 0.3}).train.min_learning_rate == 0.0


def test_with_values_sets_the_warm_up_and_the_share_of_the_final_rate() -> None:
    (spec,) = make_specs(["bigram"], "x.txt", "char", {"learning_rate": 0.01, "min_learning_rate": 0.002})
    train = with_values(spec, {RATE: 0.001, WARMUP: 7.0, FINAL: 0.5}).train
    assert (train.learning_rate, train.warmup_steps, train.min_learning_rate) == (0.001, 7, 0.0005)
    assert with_values(spec, {FINAL: 0.1}).train.min_learning_rate == 0.001
    assert with_values(spec, {RATE: 0.0012399, FINAL: 1.0}).train.min_learning_rate == 0.0012399, "not rounded up"


def test_compare_gives_every_model_the_same_grid(finished: tuple[Results, Path, str]) -> None:
    results, out, _ = finished
    tuning = results.tuning
    assert (tuning["setting"], tuning["values"], tuning["most_added"]) == ("learning_rate", [0.03, 0.1], 2)
    assert set(tuning["models"]) == {"bigram", "mlp"}, "ngram is not trained by gradients"
    for name, model in tuning["models"].items():
        losses = {trial["value"]: trial["selection_loss"] for trial in model["tried"]}
        assert {0.03, 0.1} <= losses.keys()
        assert model["chosen"] == best_value(losses)
        assert model["at_end"] == at_end(Grid(RATE, (0.03, 0.1)), losses)
        row = next(row for row in results.models if row.name == name)
        assert row.config["train"]["learning_rate"] == model["chosen"]
        chosen = next(trial for trial in model["tried"] if trial["value"] == model["chosen"])
        assert row.run == row.cells[0].run == chosen["run"]
        assert row.cells[0].loss == chosen["loss"]
        assert [trial["value"] for trial in model["tried"] if trial["loss"] is not None] == [model["chosen"]]
        assert [cell.selection_loss for cell in row.cells] == [chosen["selection_loss"], None]
        assert row.cells[1].run == f"{chosen['run']},seed=1338"
        assert all((out / trial["run"] / "config.toml").is_file() for trial in model["tried"])
        assert row.sample
        assert row.decode_tokens_per_s


def test_compare_chooses_on_one_half_and_reports_the_other(finished: tuple[Results, Path, str]) -> None:
    results, out, text = finished
    for row in results.models:
        model, tokenizer, _ = load_run(out / row.run)
        select, report = validation_halves(load_corpus(text), tokenizer)
        assert row.cells[0].selection_loss == pytest.approx(evaluate(model, select.split).loss, abs=1e-6)
        assert row.cells[0].loss == pytest.approx(evaluate(model, report.split).loss, abs=1e-6)
        assert row.cells[0].bits_per_byte == pytest.approx(evaluate(model, report.split).bits_per_byte, abs=1e-6)
        assert row.cells[0].loss != row.cells[0].selection_loss
    assert results.tuning["report"] == {
        "documents": report.documents, "tokens": report.split.n_tokens, "bytes": report.split.n_bytes
    }  # fmt: skip
    ngram = next(row for row in results.models if row.name == "ngram")
    order = ngram.config["model"]["order"]
    reference = next(reference for reference in results.references if reference.order == order)
    assert ngram.cells[0].loss == pytest.approx(reference.loss, rel=1e-5), "the n-grams are of the same half"


def test_report_shows_the_sensitivity(finished: tuple[Results, Path, str]) -> None:
    results, out, _ = finished
    page, text = (out / "report.html").read_text(encoding="utf-8"), (out / "table.md").read_text(encoding="utf-8")
    assert html(results) == page
    assert markdown(results) == text
    for name, model in results.tuning["models"].items():
        for trial in model["tried"]:
            shown = f"{trial['selection_loss']:.3f}"
            assert shown in page
            assert (f"**{shown}**" if trial["value"] == model["chosen"] else shown) in text
        ends = next((note for note in notes(results) if "a better one may lie beyond" in note), "")
        assert (name in ends) == model["at_end"]
    assert "Sensitivity to the learning rate" in page
    assert "a half of the validation split" in page
    assert not any("not tuned with equal effort" in note for note in notes(results))
    note = next(note for note in notes(results) if "was chosen with equal effort: 2 values for all" in note)
    for half in ("selection", "report"):
        size = results.tuning[half]
        assert f"{size['tokens']:,} tokens" in note
        assert f"({size['documents']} documents)" in note


def test_compare_goes_on_with_the_search(finished: tuple[Results, Path, str], tmp_path: Path) -> None:
    results, out, text = finished
    tried = sum(len(model["tried"]) for model in results.tuning["models"].values())
    events: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, StepEvent):
            events.append(event)
            if len(events) == 50:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(NAMES, text, tmp_path, tune=TUNE, seeds=2, settings=SETTINGS, listeners=[stop])
    again: list[Event] = []
    compare(NAMES, text, tmp_path, tune=TUNE, seeds=2, settings=SETTINGS, listeners=[again.append])
    trained = sum(isinstance(event, StepEvent) and "ngram" not in str(event) for event in again)
    assert 20 * (tried + 2 - 2) <= trained, "two cells were finished"
    assert trained < 20 * (tried + 2 + 2)
    timed = {"train_tokens_per_s", "decode_tokens_per_s", "seconds", "eval_seconds"}

    def lasting(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lasting(each) for key, each in value.items() if key not in timed}
        return [lasting(each) for each in value] if isinstance(value, list) else value

    found, expected = (lasting(json.loads((path / "results.json").read_text())) for path in (tmp_path, out))
    assert found == expected
    before = (tmp_path / "results.json").read_bytes()
    again.clear()
    compare(NAMES, text, tmp_path, tune=TUNE, seeds=2, settings=SETTINGS, listeners=[again.append])
    assert not any(isinstance(event, StepEvent) for event in again)
    assert (tmp_path / "results.json").read_bytes() == before


def test_compare_never_chooses_a_rate_that_diverged(
    finished: tuple[Results, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parts.train_part

    def diverging(spec: Any, *given: Any, **options: Any) -> Any:
        result = plain(spec, *given, **options)
        if spec.train.learning_rate > 0.05:
            raise DivergedError("step 7: the loss is nan")
        return result

    monkeypatch.setattr(parts, "train_part", diverging)
    results = compare(["bigram"], finished[2], tmp_path, tune=TUNE, settings=SETTINGS | {"steps": 2})
    model = results.tuning["models"]["bigram"]
    assert model["chosen"] <= 0.03
    high = next(trial for trial in model["tried"] if trial["value"] == 0.1)
    assert (high["status"], high["selection_loss"], high["loss"]) == ("diverged", None, None)
    assert "diverged" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert results.models[0].status == "ranked"


def test_mode_of_evaluation_is_part_of_a_cell(finished: tuple[Results, Path, str], tmp_path: Path) -> None:
    """The run with the rate of the preset is not trained again, but its loss on the halves is another one."""
    settings = SETTINGS | {"steps": 2}
    rate = make_specs(["bigram"], "x.txt", "char", {})[0].train.learning_rate
    whole = compare(["bigram"], finished[2], tmp_path, settings=settings).models[0]
    assert whole.cells[0].selection_loss is None
    tuned = compare(["bigram"], finished[2], tmp_path, tune=f"learning_rate={rate},{3 * rate}", settings=settings)
    trial = next(trial for trial in tuned.tuning["models"]["bigram"]["tried"] if trial["value"] == rate)
    assert trial["run"] == whole.run
    assert trial["selection_loss"] not in (None, whole.loss), "the run is there, but its loss on a half is not"


@pytest.mark.parametrize("key", ["learning_rate", "train.learning_rate", "bigram.learning_rate"])
def test_compare_refuses_a_rate_that_is_tuned(key: str, finished: tuple[Results, Path, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=0\.1 cannot be given: learning_rate is tuned"):
        compare(["bigram"], finished[2], tmp_path / "out", tune=TUNE, settings={"steps": 2, key: 0.1})
    run = finished[1] / finished[0].models[0].run
    with pytest.raises(ConfigError, match=r"tune='learning_rate' cannot be given: .* is a finished run"):
        compare([str(run)], None, tmp_path / "out", tune="learning_rate")
    assert not (tmp_path / "out").exists()
