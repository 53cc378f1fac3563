"""Tests the searches in the results: what is recorded of them, sentences and tables, and two settings end to end."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest

from lmzoo.compare import Results, compare
from lmzoo.compare.notes import notes
from lmzoo.compare.records import load_results, read_results
from lmzoo.compare.report import html
from lmzoo.compare.table import markdown
from lmzoo.compare.tune import parse_tune
from lmzoo.compare.tuning import (
    at_ends,
    begun,
    describe,
    searches,
    setting_title,
    shown,
    tune_notes,
    tuned_table,
    with_found,
)
from lmzoo.data.corpora import load_corpus
from lmzoo.data.halves import validation_halves
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.runs.directory import read_tables
from tests.compare.example import everything, example, two_searches
from tests.compare.small import SETTINGS, write_text

TUNE = ["learning_rate=0.03,0.1,0.3", "min_learning_rate=0%,50%", "warmup_steps=0,2,6"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    return compare(["gpt2", "ngram"], write_text(folder), folder / "out", tune=TUNE, settings=SETTINGS), folder / "out"


def test_compare_searches_one_setting_after_another(tuned: tuple[Results, Path]) -> None:
    results, out = tuned
    rates, warmups, finals = searches(results.tuning)
    assert [search["setting"] for search in (rates, warmups, finals)] == [
        "learning_rate",
        "warmup_steps",
        "min_learning_rate",
    ]
    assert [search["values"] for search in (rates, warmups, finals)] == [[0.03, 0.1, 0.3], [0, 2, 6], [0.0, 0.5]]
    rate, warmup, final = (search["models"]["gpt2"]["chosen"] for search in (rates, warmups, finals))
    settings = {
        trial["run"]: read_tables(out / trial["run"])["train"]
        for search in (rates, warmups, finals)
        for trial in search["models"]["gpt2"]["tried"]
    }
    assert len(settings) == len(list((out / "runs").iterdir())) - 1, "each run is made once; ngram has one"
    for trial in rates["models"]["gpt2"]["tried"]:
        train = settings[trial["run"]]
        assert (train["learning_rate"], train["warmup_steps"]) == (trial["value"], 2), "the middle of the others' grids"
        assert train["min_learning_rate"] == 0
    for trial in warmups["models"]["gpt2"]["tried"]:
        assert (settings[trial["run"]]["learning_rate"], settings[trial["run"]]["warmup_steps"]) == (
            rate,
            trial["value"],
        )
    for trial in finals["models"]["gpt2"]["tried"]:
        train = settings[trial["run"]]
        assert train["warmup_steps"] == warmup
        assert train["min_learning_rate"] == pytest.approx(trial["value"] * rate, rel=0.01)
    row = next(row for row in results.models if row.name == "gpt2")
    chosen = next(trial for trial in finals["models"]["gpt2"]["tried"] if trial["value"] == final)
    assert (row.run, row.loss) == (chosen["run"], chosen["loss"])
    tried = [trial for search in (rates, warmups, finals) for trial in search["models"]["gpt2"]["tried"]]
    lowest = min(trial["selection_loss"] for trial in tried)
    assert chosen["selection_loss"] == lowest, "no search makes the recipe worse"


def test_compare_goes_on_with_several_searches(tuned: tuple[Results, Path]) -> None:
    results, out = tuned
    before = (out / "results.json").read_bytes()
    data = str(out.parent / "sea.txt")
    compare(["gpt2", "ngram"], data, out, tune=TUNE, settings=SETTINGS)
    assert (out / "results.json").read_bytes() == before
    loaded = load_results(out)
    assert loaded.tuning == results.tuning
    assert markdown(loaded) == (out / "table.md").read_text(encoding="utf-8")
    record = next(record for record in read_results(out) if record["model"] == "gpt2")
    assert record["train.warmup_steps"] == searches(results.tuning)[1]["models"]["gpt2"]["chosen"]


def test_report_and_table_show_each_setting(tuned: tuple[Results, Path]) -> None:
    for results in (tuned[0], two_searches()):
        page, text = html(results), markdown(results)
        for search in begun(results):
            title = setting_title(search["setting"])
            assert f"<h2>Sensitivity to the {title}</h2>" in page
            headings = [title, *tuned_table(search)[0][1:]]
            assert f"| {' | '.join(headings)} |" in text
        assert page.count('data-figure="sensitivity') == len(begun(results))
    assert "| final learning rate | 0 % | 50 % |" in markdown(tuned[0])


def test_describe_and_with_found_keep_the_form_of_one_search(text: Path) -> None:
    corpus = load_corpus(str(text))
    halves = validation_halves(corpus, train_tokenizer("char", corpus.chunks("train")))
    one = describe(parse_tune("learning_rate"), halves, [1.0])
    assert list(one) == ["setting", "values", "models", "most_added", "selection", "report"]
    found = {"chosen": 0.005, "at_end": False, "tried": []}
    assert with_found(one, {"gpt2": [found]}, []) == {**one, "models": {"gpt2": found}}
    two = describe(parse_tune("learning_rate,min_learning_rate"), halves, [1.0])
    assert two["then"] == [{"setting": "min_learning_rate", "values": [0.0, 0.1, 0.3], "models": {}}]
    assert with_found(two, {"gpt2": [found, found]}, [])["then"][0]["models"] == {"gpt2": found}
    assert "halving" not in two
    assert describe(parse_tune("learning_rate"), halves, [0.5, 1.0])["halving"]["parts"] == [0.5, 1.0]


def test_searches_of_results_without_any() -> None:
    assert searches(example().tuning) == begun(example()) == tune_notes(example()) == []
    assert begun(everything()) == [everything().tuning]
    assert begun(dataclasses.replace(everything(), tuning={**everything().tuning, "models": {}})) == []


def test_tune_notes_name_the_order_and_the_ends_of_grids() -> None:
    found = tune_notes(two_searches())
    names = "The learning rate, then the warm-up steps of each model were chosen"
    assert found[0].startswith(f"{names} with equal effort: 2, then 2 values for all")
    assert found[0].endswith("The loss of the first seed tends to be too low, since the values were chosen with it.")
    assert "one after another, each at the best values of those before it" in found[1]
    assert at_ends(two_searches()) == {"learning_rate": ["gpt2.tiny"]}
    assert found[-1] == (
        "The best learning rate lies at an end of what was tried, so a better one may lie beyond: gpt2.tiny."
    )
    assert all(note in notes(two_searches()) for note in found)
    assert "was chosen with equal effort: 2 values for all" in tune_notes(everything())[0]


def test_tuned_table_names_the_last_step_of_a_stopped_run() -> None:
    rates, warmups = searches(two_searches().tuning)
    assert tuned_table(rates) == (
        ["learning rate", "0.005", "0.01", "0.02", "0.04"],
        [
            [
                ("gpt2.tiny", False),
                ("1.500", False),
                ("1.400", True),
                ("2.600 (step 25)", False),
                ("diverged", False),
            ]
        ],
    )
    other = copy.deepcopy(dict(warmups))
    other["models"]["mamba.tiny"] = {"chosen": 7.0, "at_end": False, "tried": []}
    assert tuned_table(other)[1][1] == [("mamba.tiny", False), ("", False), ("", False)]


def test_shown_gives_final_rates_as_percent() -> None:
    assert shown("min_learning_rate", 0.025) == "2.5 %"
    assert shown("learning_rate", 0.025) == "0.025"
    assert setting_title("weight_decay") == "weight decay"
