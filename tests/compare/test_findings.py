"""Tests what a comparison with several seeds claims: in the table, in Markdown, in the report and in words."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from lmzoo.compare import Results, table
from lmzoo.compare.figure_of_costs import costs
from lmzoo.compare.figures import ranking
from lmzoo.compare.findings import pair_rows, place, seed_notes
from lmzoo.compare.notes import headline, notes
from lmzoo.compare.report import html
from lmzoo.compare.results import ModelResult, model_colors
from tests.compare.example import several_seeds

# "zebra" has the lowest mean of the first two, but cannot be told apart from "ant"; "worse" is clearly worse.
LOSSES = {
    "worse": [1.90, 1.91, 1.89, 1.90],
    "zebra": [1.500, 1.520, 1.490, 1.510],
    "ant": [1.515, 1.505, 1.510, 1.500],
}
CLEAR = {"b": LOSSES["zebra"], "a": [loss + 0.2 for loss in LOSSES["ant"]]}


@pytest.fixture
def results() -> Results:
    return several_seeds(LOSSES)


def test_rows_order_only_what_is_told_apart(results: Results) -> None:
    found = [(row.kind, row.name, row.cells[0]) for row in table.rows(results)]
    assert found == [
        ("model", "ant", "1–2"),  # alphabetical, although the mean of zebra is lower
        ("model", "zebra", "1–2"),
        ("model", "worse", "3"),
        ("reference", "3-gram", ""),  # not among the models: that would order them
        ("reference", "2-gram", ""),
        ("unranked", "wild", ""),
    ]
    means = {model.name: model.loss for model in results.models}
    assert means["zebra"] < means["ant"]
    assert results.best is None
    assert results.ranked[0].name == "ant"


def test_rows_show_the_interval(results: Results) -> None:
    assert results.statistics is not None
    mean = results.statistics.means["worse"]
    row = next(row for row in table.rows(results) if row.name == "worse")
    assert row.cells[2] == f"1.900 ± {(mean.high - mean.low) / 2:.3f}"


def test_an_unfinished_comparison_shows_means_of_the_same_seeds_as_the_intervals(results: Results) -> None:
    """The loss of a model is the mean of all its seeds; the statistics are of those that every model has done."""
    shared = several_seeds({name: losses[:2] for name, losses in LOSSES.items()})
    early = dataclasses.replace(results, statistics=shared.statistics, complete=False)
    cells = {row.name: row.cells[2] for row in table.rows(early)}
    assert early.statistics is not None
    assert early.statistics.means["zebra"].mean == pytest.approx(1.51)
    assert cells["zebra"].startswith("1.510 ± "), "and not 1.505"
    for draw in (ranking, costs):
        figure = draw(early, model_colors(early))
        assert figure is not None
        (row,) = [row for row in figure.spec["data"]["values"] if row["model"] == "zebra"]
        assert row["low"] + row["high"] == pytest.approx(2 * row["loss"])


def colored(results: Results) -> list[str]:
    """Return the names in lines that a terminal shows in green."""
    output = io.StringIO()
    Console(file=output, width=120, force_terminal=True).print(table.rich_table(results, 120))
    green = [line for line in output.getvalue().splitlines() if "\x1b[1;32m" in line]
    return [model.name for model in results.models if any(f" {model.name} " in line for line in green)]


def test_nothing_is_colored_below_the_noise(results: Results) -> None:
    assert colored(results) == []
    assert 'class="best"' not in html(results)
    clear = several_seeds(CLEAR)
    assert colored(clear) == ["b"]
    assert html(clear).count('class="best"') == 1


def test_headline_claims_no_more_than_the_statistics(results: Results) -> None:
    text = headline(results)
    assert text.startswith("ant and zebra cannot be told apart with 4 seeds. Every other model certainly has a higher")
    assert "lowest" not in text
    clear = headline(several_seeds(CLEAR))
    assert clear.startswith("b has the lowest validation loss, 1.505 nats per token (95 % interval of 4 seeds: 1.48")
    assert "and is told apart from every other ranked model." in clear
    equal = headline(several_seeds({name: LOSSES[name] for name in ("ant", "zebra")}))
    assert equal.startswith("ant and zebra cannot be told apart with 4 seeds. 2 of 2 models beat the best")
    alone = headline(several_seeds({"b": LOSSES["zebra"]}))
    assert alone.startswith("b has a validation loss of 1.505 nats per token (95 % interval of 4 seeds")
    assert text.endswith(" 2 of 3 models beat the best counted n-gram (3-gram, 1.700), with the whole 95 % interval.")
    close = several_seeds({name: [loss + 0.19 for loss in losses] for name, losses in LOSSES.items()})
    none = "No model beats the best counted n-gram (3-gram, 1.700)"
    assert headline(close).endswith(f"{none}, with the whole 95 % interval."), "its interval holds that of the n-gram"
    worse = several_seeds({name: [loss + 1.0 for loss in losses] for name, losses in LOSSES.items()})
    assert headline(worse).endswith(f"{none}.")


def test_headline_of_an_order_that_is_not_transitive() -> None:
    """The model "first" is told apart from "last"; nobody is told apart from "wide"."""
    found = several_seeds(
        {"first": [1.50, 1.51, 1.49, 1.50], "last": [1.60, 1.61, 1.59, 1.60], "wide": [1.3, 2.1, 1.4, 2.0]}
    )
    assert found.places == {"first": (1, 2), "last": (2, 3), "wide": (1, 3)}
    text = headline(found)
    assert text.startswith("first and wide cannot be told apart with 4 seeds. Every other model certainly has a higher")
    statistics = found.statistics
    assert statistics is not None
    assert statistics.means["last"].mean < statistics.means["wide"].mean, "so wide has not a lower loss than last"


def test_notes_deny_no_difference_that_the_pairs_claim() -> None:
    """The noise of "wide" makes that of all models larger than the difference of the other two, which is certain."""
    found = several_seeds(
        {"a": [1.500, 1.501, 1.499, 1.500], "b": [1.520, 1.521, 1.519, 1.521], "wide": [3.0, 3.4, 2.6, 3.0]}
    )
    assert found.statistics is not None
    pair = found.statistics.pairs[0]
    assert pair.told_apart
    assert abs(pair.difference) < found.statistics.noise
    assert not any("No smaller difference is a finding" in note for note in seed_notes(found))


def test_headline_of_a_comparison_without_two_seeds_ranks_nothing(results: Results) -> None:
    early = dataclasses.replace(results, statistics=None, complete=False)
    assert headline(early) == (
        "Not finished. Fewer than two seeds of every model are done, so no model has a rank yet."
    )
    assert [place(early, model.name) for model in early.ranked] == ["", "", ""]
    alone = dataclasses.replace(early, models=early.models[:1])
    assert (place(alone, alone.models[0].name), alone.best) == ("", None)
    assert colored(early) == []
    assert seed_notes(early) == []


def test_notes_name_the_noise_first_and_what_cannot_be_told_apart(results: Results) -> None:
    found = notes(results)
    assert results.statistics is not None
    assert found[0].startswith(
        f"A changed seed alone moves the loss of a model by {results.statistics.noise:.2g} nats (standard deviation "
        "over 4 seeds, over all models). A difference of two models is a finding only if it exceeds the noise of these "
    )
    assert found[1:2] == ["ant cannot be told apart from zebra."]
    assert not [note for note in found[2:] if note.startswith("zebra cannot")]
    assert any(note.startswith("For each seed, every model saw the same tokens") for note in found)
    assert not any("One seed" in note for note in found)


def test_pair_rows_give_a_verdict_on_every_pair(results: Results) -> None:
    rows = pair_rows(results)
    assert [row[:2] for row in rows] == [("ant", "zebra"), ("ant", "worse"), ("zebra", "worse")]
    assert [row[5] for row in rows] == [
        "cannot be told apart (below the noise)",
        "ant is lower",
        "zebra is lower",
    ]
    assert rows[0][2] == "+0.0025"
    low, high = (float(text) for text in rows[1][3].split(" to "))
    assert low < float(rows[1][2]) < high < 0
    assert rows[1][4] == "< 0.001"


def test_pair_rows_name_the_seeds_that_are_missing() -> None:
    (row,) = pair_rows(several_seeds({"a": [1.50, 1.53, 1.49], "b": [1.54, 1.53, 1.55]}))
    assert re.fullmatch(r"cannot be told apart \(about \d+ more seeds\)", row[5])


def test_pair_rows_call_nothing_below_the_noise_a_finding() -> None:
    shared = [0.02, -0.03, 0.01, 0.0, 0.03, -0.02, 0.01, -0.02]
    small = {"a": [1.5 + each for each in shared], "b": [1.51 + each * 1.01 for each in shared]}
    (row,) = pair_rows(several_seeds(small))
    assert row[4] == "< 0.001"
    assert row[5] == "cannot be told apart (below the noise)"
    assert {place(several_seeds(small), name) for name in small} == {"1–2"}


def test_markdown_and_report_show_pairs_noise_and_seeds(results: Results) -> None:
    text, page = table.markdown(results), html(results)
    assert text.startswith("sea.txt, tokenizer char: 100 steps of 4 x 5 tokens for every model, seeds 7 to 10\n")
    for row in pair_rows(results):
        assert "| " + " | ".join(cell.replace("<", "\\<") for cell in row) + " |" in text
        assert row[3] in page
    for shown in (text, page):
        assert "A changed seed alone moves the loss" in shown
        assert "the difference exceeds the noise" in shown
    assert "<dd>7 to 10<small>" in page
    assert "1–2" in page


def test_a_single_model_has_no_pairs() -> None:
    alone = several_seeds({"b": LOSSES["zebra"]})
    assert pair_rows(alone) == []
    assert "Differences" not in html(alone)
    none = dataclasses.replace(alone, models=[ModelResult(name="x", status="failed", problem="why")], statistics=None)
    assert headline(none) == "No model has a rank: see the reasons below."
