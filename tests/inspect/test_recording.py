"""Tests recordings: a mapping of names to tensors, shown in a notebook, with every name explained in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lmzoo.inspect.recording import MEASURED, NAMES, Recording, block_of, kind_of
from lmzoo.layers.offers import VOCABULARY

DOCUMENT = Path(__file__).parents[2] / "docs" / "inspect.md"


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("blocks.3.attention.weights", 3, "attention.weights"),
        ("blocks.12.gates.decay.2", 12, "gates.decay"),
        ("state.norm", None, "state.norm"),
        ("router.chosen.2", None, "router.chosen"),
    ],
)
def test_block_and_kind_of_a_name(name: str, block: int | None, kind: str) -> None:
    assert (block_of(name), kind_of(name)) == (block, kind)


def test_recording_is_a_mapping() -> None:
    values = {"blocks.0.gates.decay": torch.ones(1, 2), "blocks.1.gates.decay": torch.zeros(1, 2)}
    found = Recording(values)
    assert dict(found) == values
    assert repr(found) == "<recording of 2 values: gates.decay>"
    assert repr(Recording({})) == "<recording of 0 values: none>"


def test_recording_is_a_table_in_a_notebook() -> None:
    shown = Recording({"blocks.<b>.gates.decay": torch.ones(1, 2, 3)})._repr_html_()
    assert "<code>blocks.&lt;b&gt;.gates.decay</code></td><td>(1, 2, 3)</td>" in shown
    assert "1 keeps, 0 forgets" in shown


def test_names_are_explained_in_the_documents() -> None:
    """The table of docs/inspect.md is the vocabulary, in its order."""
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.*?) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(name, offer.shape, offer.meaning) for name, offer in NAMES.items()]
    assert not VOCABULARY.keys() & MEASURED.keys()
