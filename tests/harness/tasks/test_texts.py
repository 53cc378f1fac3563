"""Tests of the data of the tasks: right answers are right, and every call gives the same rows."""

from __future__ import annotations

from lmzoo.data import load_corpus
from lmzoo.harness.tasks import texts


def test_documents_are_of_the_validation_split() -> None:
    rows = texts.documents(count=5)["test"]
    val = "".join(load_corpus("pydocs").chunks("val"))
    assert len(rows) == 5
    assert all(row["text"] in val for row in rows)


def test_next_words_has_the_word_of_the_text_among_four() -> None:
    rows = texts.next_words(count=60)["test"]
    val = "".join(load_corpus("pydocs").chunks("val"))
    assert len(rows) > 50
    for row in rows:
        assert len({*row["choices"]}) == 4
        assert row["context"] + row["choices"][row["answer"]] in val
    assert {row["answer"] for row in rows} == {0, 1, 2, 3}


def test_copies_ask_for_the_last_line() -> None:
    for row in texts.copies(count=10)["test"]:
        *shown, last = row["context"].split("\n")
        assert row["answer"] == f" {last.removesuffix(';')}"
        assert all(left == right for left, right in (line.split("; ") for line in shown))


def test_rows_are_the_same_in_every_call() -> None:
    for make in (texts.documents, texts.next_words, texts.copies):
        assert list(make(count=8)["test"]) == list(make(count=8)["test"])
