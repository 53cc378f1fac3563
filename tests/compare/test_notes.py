"""Tests the sentences of the report: the headline and the caveats."""

from __future__ import annotations

import dataclasses

from lmzoo.compare.notes import entropy_notes, headline, notes
from lmzoo.compare.results import CellResult
from lmzoo.compare.table import markdown
from tests.compare.example import example, model


def test_headline_names_the_difference_and_the_number_of_seeds() -> None:
    assert "0.010 below close (one seed each)." in headline(example())
    assert headline(example()).endswith(" 2 of 3 models beat the best counted n-gram (3-gram, 1.700).")
    alone = headline(dataclasses.replace(example(), models=[model("a", 1.5)]))
    assert alone.startswith("a has a validation loss of 1.500 nats per token (")
    assert alone.endswith(" a beats the best counted n-gram (3-gram, 1.700).")
    apart = dataclasses.replace(example(), models=[model("a", 1.5), model("b", 1.8)])
    assert headline(apart).endswith(" Only a beats the best counted n-gram (3-gram, 1.700).")
    assert "a has the lowest validation loss, 1.500 nats per token" in headline(apart)
    assert "0.300 below b (one seed each)" in headline(apart)
    assert "No model has a rank" in headline(dataclasses.replace(example(), models=[]))


def test_headline_of_equal_losses_orders_nothing() -> None:
    equal = dataclasses.replace(example(), models=[model("b", 1.5), model("a", 1.5), model("c", 1.6)])
    assert equal.places == {"b": (1, 2), "a": (1, 2), "c": (3, 3)}
    assert equal.best is None
    same = "a and b have the same validation loss, 1.500 nats per token"
    assert headline(equal).startswith(f"{same}, the lowest (one seed each).")
    both = dataclasses.replace(equal, models=equal.models[:2])
    assert headline(both).startswith(f"{same} (one seed each). 2 of 2 models beat")


def test_notes_follow_from_the_results() -> None:
    results = example()
    assert "a difference may be chance" in notes(results)[0]
    assert not any("differ in size" in note for note in notes(results))
    mixed = dataclasses.replace(results, models=[model("a", 1.5), model("b", 1.8, params=9)])
    assert any("9 to 113 k parameters" in note for note in notes(mixed))
    assert any("2.350 nats" in note and "2.450" in note for note in notes(results))
    assert any("once (2.00 k tokens)" in note and "their window of 5 tokens" in note for note in notes(results))
    assert not any("a part of the training text" in note for note in notes(results))
    capped = dataclasses.replace(results, budget=results.budget | {"tokens": 8000})
    assert any("counted on a part of the training text" in note for note in notes(capped))
    assert not any("was built from" in note for note in notes(results))
    built_in = dataclasses.replace(
        results, corpus={**results.corpus, "origin": "the standard library of CPython 3.11.7"}
    )
    assert any("sea.txt was built from the standard library of CPython 3.11.7" in note for note in notes(built_in))
    assert not any("Precision in training" in note for note in notes(results))
    low = [dataclasses.replace(model(n, 1.5), config={"precision": p}) for n, p in (("a", "bf16"), ("b", "float32"))]
    text = "Precision in training: bf16: a; float32: b."
    assert any(text in note for note in notes(dataclasses.replace(results, models=low)))
    partial = dataclasses.replace(results, complete=False)
    assert "not finished" in notes(partial)[0]
    assert headline(partial).startswith("Not finished; so far, best has")


def test_notes_say_which_text_the_ngrams_were_counted_on() -> None:
    results = example()
    faster = dataclasses.replace(results, budget=results.budget | {"kind": "seconds", "amount": 9})
    several = dataclasses.replace(results, seeds=[7, 8])
    for found, text in (
        (results, "the training text that the models saw"),
        (faster, "the training text that the model with the most steps saw"),
        (several, "the training text that the models saw with the first seed"),
    ):
        assert any(note.startswith(f"The n-grams were counted on {text}, each window once") for note in notes(found))
        assert any(note.startswith(f"On {text}, no bigram table can have a lower loss") for note in notes(found))
        assert f"counted on {text}, with the context of the models." in markdown(found)


def test_entropy_notes_say_how_far_each_model_is_from_the_limit() -> None:
    results = example()
    assert entropy_notes(results) == []
    for nats, above in (
        (1.4, "best 0.100, close 0.110, slow 0.500"),
        (1.503, "best -0.003, close 0.007, slow 0.397 (a negative number is chance)"),
    ):
        known = dataclasses.replace(results, corpus={**results.corpus, "entropy_rate": {"nats": nats, "error": 0.0}})
        rate = f"The entropy rate of sea.txt is {nats:.3f} nats per token"
        (note,) = entropy_notes(known)
        assert note == f"{rate}: no model has a lower expected loss. Nats above it: {above}"
        assert f"{note}." in notes(known)
        assert note in markdown(known)
    none = dataclasses.replace(known, models=[])
    assert entropy_notes(none) == [f"{rate}: no model has a lower expected loss"]


def test_notes_say_how_many_runs_shared_the_machine() -> None:
    results = example()
    assert not any("at once" in note for note in notes(results))
    cells = [CellResult(seed=7, run="runs/a", loss=1.5, at_once=n) for n in (1, 4)]
    several = dataclasses.replace(results, models=[model("a", 1.5, cells=cells)])
    (note,) = [note for note in notes(several) if "at once" in note]
    assert note.startswith(
        "Up to 4 runs were made at once, each with 2 CPU threads. The speeds were measured afterwards"
    )
