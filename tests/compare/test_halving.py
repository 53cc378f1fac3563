"""Tests successive halving end to end: which runs go on, what is saved, and that a kill does not change the results."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare import Results, compare, processes, schedule
from lmzoo.compare.halving import cost, halving_notes, refuse_halving, rungs, shares
from lmzoo.compare.plan import make_specs
from lmzoo.compare.results import ModelResult
from lmzoo.compare.tune import Grid, parse_tune
from lmzoo.compare.tuning import searches
from lmzoo.errors import ConfigError
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.resuming import read_spec
from lmzoo.runs.run import load_run, train_run
from lmzoo.train.events import CellsEvent, Event, StepEvent
from tests.compare.example import two_searches
from tests.compare.small import SETTINGS, TRAINING, serve_short_samples, write_text, written
from tests.helpers import assert_same, tensors

NAMES, TUNE = ["bigram", "gpt2"], ["learning_rate=0.01,0.03,0.1", "warmup_steps=0,2"]
STEPS = SETTINGS["steps"]


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "POLL_SECONDS", 0.01)
        patch.setattr(processes, "serve", serve_short_samples)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text(tmp_path_factory.mktemp("text"))


def halved(text: str, out: Path, *listeners: Callable[[Event], None], workers: int = 1) -> Results:
    options: dict[str, Any] = {"seeds": 2, "settings": SETTINGS, "workers": workers, "listeners": listeners}
    return compare(NAMES, text, out, tune=TUNE, halving=True, **options)


@pytest.fixture(scope="module")
def finished(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path, int]:
    """A finished comparison, and the number of steps that it made."""
    out, steps = tmp_path_factory.mktemp("halved") / "out", itertools.count()
    results = halved(text, out, lambda event: (isinstance(event, StepEvent) and next(steps)) or None)
    return results, out, next(steps)


def trials(results: Results) -> dict[str, dict[str, Any]]:
    """All trials of a comparison, by run."""
    return {
        trial["run"]: trial
        for search in searches(results.tuning)
        for model in search["models"].values()
        for trial in model["tried"]
    }


def test_compare_lets_the_better_half_of_the_runs_go_on(finished: tuple[Results, Path, int]) -> None:
    results, _, _ = finished
    rates, _ = searches(results.tuning)
    assert results.tuning["halving"]["parts"] == [0.25, 0.5, 1.0]
    for model in rates["models"].values():
        by_step = {
            step: {
                trial["value"]: dict(trial["parts"])[step] for trial in model["tried"] if step in dict(trial["parts"])
            }
            for step in (6, 12, 24)
        }
        for before, after in itertools.pairwise(by_step.values()):
            best = sorted(before, key=lambda value: (before[value], value))[: (len(before) + 1) // 2]
            assert sorted(after) == sorted(best)
        assert model["chosen"] == min(by_step[24], key=by_step[24].__getitem__)
        for trial in model["tried"]:
            assert trial["status"] == ("trained" if trial["value"] in by_step[24] else "stopped")
            assert trial["selection_loss"] == trial["parts"][-1][1]
            if trial["status"] == "stopped":
                assert trial["loss"] is None
    assert {trial["status"] for trial in trials(results).values()} == {"trained", "stopped"}


def test_compare_states_the_tokens_that_were_saved(finished: tuple[Results, Path, int]) -> None:
    results, out, steps = finished
    halving, tokens = results.tuning["halving"], SETTINGS["batch_size"] * SETTINGS["context_length"]
    runs = trials(results)
    assert halving["tokens"] + halving["saved_tokens"] == len(runs) * STEPS * tokens
    assert halving["saved_share"] == halving["saved_tokens"] / (len(runs) * STEPS * tokens) > 0.25
    seeds = len(NAMES)  # runs of the second seed
    assert steps == halving["tokens"] // tokens + seeds * STEPS, "no step is made twice"
    percent = f"({100 * halving['saved_share']:.0f} %)"
    for name in ("report.html", "table.md"):
        assert f"training tokens of the search were not spent {percent}" in (out / name).read_text(encoding="utf-8")


def test_compare_resumes_runs_as_if_they_had_never_stopped(
    finished: tuple[Results, Path, int], text: str, tmp_path: Path
) -> None:
    results, out, _ = finished
    row = next(row for row in results.models if row.name == "gpt2")
    alone = tmp_path / "alone"
    train_run(read_spec(out / row.run, {}, data=text), alone)
    assert_same(tensors(alone, STEPS), tensors(out / row.run, STEPS))
    ours, theirs = (
        # A comparison evaluates on the half that is reported.
        [(line["step"], line["split"], line["split"] == "val" or line["loss"]) for line in read_metrics(run)]
        for run in (out / row.run, alone)
    )
    assert ours == theirs
    stopped = next(run for run, trial in trials(results).items() if trial["status"] == "stopped")
    assert read_metrics(out / stopped)[-1]["step"] < STEPS
    assert load_run(out / stopped).tables["train"]["steps"] == STEPS, "the schedule is that of all steps"


@pytest.mark.parametrize("stop_at", [3, 20, 45, 60, 80, 110])
def test_compare_goes_on_after_an_interrupt_in_any_part(
    stop_at: int, finished: tuple[Results, Path, int], text: str, tmp_path: Path
) -> None:
    steps = itertools.count(1)

    def stop(event: Event) -> None:
        if isinstance(event, StepEvent) and next(steps) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halved(text, tmp_path, stop)
    again = itertools.count()
    halved(text, tmp_path, lambda event: (isinstance(event, StepEvent) and next(again)) or None)
    assert written(tmp_path) == written(finished[1])
    made = next(again)
    assert finished[2] - stop_at <= made < finished[2] - stop_at + 12, "at most the steps since a checkpoint are lost"


def test_processes_halve_as_one_process_does(finished: tuple[Results, Path, int], text: str, tmp_path: Path) -> None:
    halved(text, tmp_path, workers=2)
    alone, several = written(finished[1]), written(tmp_path)
    for found, number in ((alone, 1), (several, 2)):
        assert {cell.pop("at_once") for row in found["models"] for cell in row["cells"]} == {number}
    assert alone == several


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_halve_again_what_a_killed_worker_did(
    seed: int, finished: tuple[Results, Path, int], text: str, tmp_path: Path
) -> None:
    wait_for, killed = random.Random(seed).randint(1, 120), list[int]()

    def kill(event: Event) -> None:
        steps = sum(cell.step for cell in event.cells) if isinstance(event, CellsEvent) else 0
        alive = [child.pid for child in multiprocessing.active_children() if child.pid not in (None, *killed)]
        if steps >= wait_for and len(killed) < 2 and alive:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    halved(text, tmp_path, kill, workers=2)
    assert len(killed) == 2
    found, expected = written(tmp_path), written(finished[1])
    for row in [*found["models"], *expected["models"]]:
        for cell in row["cells"]:
            del cell["at_once"]
    assert found == expected


def test_compare_refuses_halving_where_it_has_no_meaning(
    finished: tuple[Results, Path, int], text: str, tmp_path: Path
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "halving=True cannot be given: it needs tune='learning_rate' or another setting"),
        (
            {"tune": "learning_rate,min_learning_rate"},
            "tune names min_learning_rate, which shows its worth only",
        ),
        ({"tune": ["learning_rate", "warmup_steps=2,8"]}, "tune: warmup_steps=8 must be at most 6"),
        ({"tune": "learning_rate", "settings": SETTINGS | {"steps": 3}}, "halving=True needs at least 4 steps, and b"),
        (
            {"tune": "learning_rate", "settings": SETTINGS | {"warmup_steps": 7}},
            "halving=True cannot be given: warmup_steps=7 of bigram must be at most 6, the steps of the first part",
        ),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            compare(NAMES, text, tmp_path / "new", halving=True, **{"settings": SETTINGS} | options)
    run = finished[1] / finished[0].models[0].run
    with pytest.raises(ConfigError, match=r"halving=True cannot be given: .* is a finished run"):
        compare([str(run)], text, tmp_path / "new", halving=True)
    assert not (tmp_path / "new").exists()


def test_compare_refuses_halving_of_runs_that_are_past_a_part(text: str, tmp_path: Path) -> None:
    compare(["bigram"], text, tmp_path, tune=TUNE[0], settings=TRAINING)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ConfigError, match=r"the run in .* is at step 24, and its loss at step 6 was not kept: compare"):
        compare(["bigram"], text, tmp_path, tune=TUNE[0], settings=TRAINING, halving=True)
    assert (tmp_path / "results.json").read_bytes() == before


def test_compare_without_halving_goes_on_with_the_runs_that_were_stopped(
    finished: tuple[Results, Path, int], text: str, tmp_path: Path
) -> None:
    shutil.copytree(finished[1] / "runs", tmp_path / "out" / "runs")
    plain = compare(NAMES, text, tmp_path / "out", tune=TUNE, settings=SETTINGS)
    whole = compare(NAMES, text, tmp_path / "new", tune=TUNE, settings=SETTINGS)
    assert plain.tuning == whole.tuning
    assert [row.loss for row in plain.ranked] == [row.loss for row in whole.ranked]


def test_refuse_halving_takes_rates_and_warm_ups() -> None:
    refuse_halving(parse_tune("learning_rate,warmup_steps"))


def test_shares_begin_with_one_run_for_the_last_part() -> None:
    def grids(*sizes: int) -> list[Grid]:
        return [Grid("learning_rate", tuple(map(float, range(1, size + 1)))) for size in sizes]

    assert shares(grids(2)) == [0.5, 1.0]
    assert shares(grids(3)) == shares(grids(4)) == shares(grids(2, 4)) == [0.25, 0.5, 1.0]
    assert shares(grids(5)) == [0.125, 0.25, 0.5, 1.0]


def test_rungs_are_whole_numbers_of_steps() -> None:
    def found(steps: int, **settings: Any) -> list[int]:
        (spec,) = make_specs(["bigram"], "x.txt", "char", {"steps": steps, **settings})
        return rungs(spec, [0.25, 0.5, 1.0], warmup_tuned="warmup_steps" in settings)

    assert found(1001) == [250, 500, 1001]
    assert found(4) == [1, 2, 4]
    assert found(40, warmup_steps=30) == [10, 20, 40], "another warm-up is tried"


def test_cost_counts_each_run_once_and_none_that_diverged() -> None:
    rows = [ModelResult(name="gpt2.tiny", steps=100, tokens=2000)]
    found = cost(searches(two_searches().tuning), rows)
    # trained: 0.005, 0.01 (in both searches) and the warm-up of 0; stopped after a quarter: 0.02
    assert found == {"tokens": 6500, "saved_tokens": 1500, "saved_share": 1500 / 8000}
    assert cost([{"models": {}}], rows) == {"tokens": 0, "saved_tokens": 0, "saved_share": 0.0}


def test_halving_notes_state_parts_and_savings() -> None:
    (note,) = halving_notes({"parts": [0.25, 0.5, 1.0], "tokens": 6500, "saved_tokens": 1500, "saved_share": 0.1875})
    assert "after 25 % and 50 % of the steps" in note
    assert "1.50 k of 8.00 k training tokens of the search were not spent (19 %)" in note
