"""Tests the tables of the loss by position and by class, and that table.md has them."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmzoo.compare import loss_tables, protocol, table
from lmzoo.compare.results import Results
from lmzoo.data.store import TokenSplit
from tests.compare.example import example, model

SPLIT = TokenSplit("", "val", np.zeros(201, np.uint16), 201, 201, 201)


def position(first: int, last: int, loss: float | None) -> dict[str, object]:
    return {"first": first, "last": last, "loss": loss, "tokens": 40}


def detailed() -> Results:
    """Two models, one of which looks further than the five tokens that both were trained with."""
    near = [position(1, 1, 3.0), position(2, 5, 2.0)]
    by_class = [{"name": "rare", "loss": 4.0, "tokens": 30}, {"name": "whitespace", "loss": None, "tokens": 0}]
    models = [
        model("b|d", 2.5, by_position=near, by_class=by_class),
        model("best", 1.5, by_position=[*near, position(6, 2000, 1.75)], by_class=by_class),
        example().models[3],
    ]
    return dataclasses.replace(example(), models=models, protocol=protocol.describe(SPLIT, 5, 5, half=False), seeds=[7])


def test_position_table_has_a_column_for_each_range() -> None:
    assert loss_tables.position_table(detailed()) == (
        ("model", "1", "2–5", "6–2,000"),
        [("best", "3.000", "2.000", "1.750"), ("b|d", "3.000", "2.000", "–")],
    )
    assert loss_tables.position_table(example()) is None


def test_positions_note_says_what_lies_beyond_training() -> None:
    results = detailed()
    note = loss_tables.positions_note(results)
    assert "Above 5, the training length: losses in windows of 2,000 tokens" in note
    assert "losses of the first seed in" in loss_tables.positions_note(dataclasses.replace(results, seeds=[7, 8]))
    short = dataclasses.replace(results, models=[results.models[0]])
    assert "training length" not in loss_tables.positions_note(short)


def test_class_table_ends_with_the_shares() -> None:
    assert loss_tables.class_table(detailed()) == (
        ("model", "all", "rare", "whitespace"),
        [
            ("best", "1.500", "4.000", "–"),
            ("b|d", "2.500", "4.000", "–"),
            ("share", "100 %", "15.0 %", "0.0 %"),
        ],
    )
    assert loss_tables.class_table(example()) is None


def test_markdown_has_both_tables_escaped_and_the_protocol() -> None:
    results = detailed()
    lines = table.markdown(results).splitlines()
    for row in (
        "| model | 1 | 2–5 | 6–2,000 |",
        "| b\\|d | 3.000 | 2.000 | – |",
        "| model | all | rare | whitespace |",
        "| share | 100 % | 15.0 % | 0.0 % |",
        loss_tables.CLASSES,
        loss_tables.positions_note(results),
        protocol.sentence(results),
    ):
        assert row in lines
    foreign = {"name": "</td><b>|", "loss": 4.0, "tokens": 30}
    named = dataclasses.replace(results, models=[model("a", 1.5, by_class=[foreign])])
    assert "| model | all | \\</td\\>\\<b\\>\\| |" in table.markdown(named).splitlines()
    plain = table.markdown(example())
    assert "by class" not in plain
    assert "before the target" not in plain
