"""Tests the results of probes as a table, in words and as keys of records."""

from __future__ import annotations

from lmzoo.compare.probe_tables import names, probe_note, probe_table, probed, problems, record_fields
from lmzoo.compare.table import markdown
from tests.compare.example import HOSTILE, everything, example, probed_example


def test_probe_table_has_a_row_for_each_model_and_both_lengths() -> None:
    table = probe_table(probed_example())
    assert table is not None
    headings, rows = table
    assert headings == ("model", "mqar easy, 32", "mqar easy, 64", "parity easy, 16", "parity easy, 64")
    assert rows == [
        ("gpt2.tiny", "✓ 1.000", "1/2 0.985", "✓ 1.000", "○ 0.520"),
        (HOSTILE, "○ 0.250", "0.600", "diverged", "diverged"),
        ("chance", "0.250", "0.250", "0.500", "0.500"),
        ("solved", "0.990", "0.990", "0.990", "0.990"),
    ]
    assert probe_table(everything()) is None


def test_names_are_in_the_order_of_the_ranking() -> None:
    results = probed_example()
    found = probed(results)
    assert found is not None
    assert found.models == [HOSTILE, "gpt2.tiny"]
    assert names(results, found) == ["gpt2.tiny", HOSTILE]
    assert probed(example()) is None


def test_markdown_and_notes_hold_what_was_probed() -> None:
    results = probed_example()
    assert "50 steps of 64 sequences, with the recipe that was chosen on the text" in probe_note(results)
    text = markdown(results)
    assert "| gpt2.tiny | ✓ 1.000 | 1/2 0.985 | ✓ 1.000 | ○ 0.520 |" in text
    assert problems(results) == [f"{HOSTILE} on parity easy diverged: the loss is nan"]
    assert "on parity easy diverged: the loss is nan" in text


def test_record_fields_are_by_model_and_seed() -> None:
    fields = record_fields(probed_example())
    assert fields["gpt2.tiny", 8] == {
        "probe.mqar.easy.trained": 1.0,
        "probe.mqar.easy.tested": 0.98,
        "probe.parity.easy.trained": 1.0,
        "probe.parity.easy.tested": 0.53,
    }
    assert fields[HOSTILE, 7]["probe.parity.easy.tested"] is None
    assert record_fields(example()) == {}
