"""Tests of `lmzoo.gallery.words`: facts for the terminal."""

from __future__ import annotations

import dataclasses

from lmzoo.entries import Family
from lmzoo.gallery.facts import gather
from lmzoo.gallery.words import in_words


def test_in_words_says_what_the_page_shows() -> None:
    found = in_words(gather("mixtral"))
    assert found["state by tokens"].startswith("98.3 kB at 64, 393 kB at 256")
    assert found["measured"].startswith("bits per byte ")
    assert found["code"] == "lmzoo/backbones/mixtral.py"
    assert "layers.experts" in found["uses"]
    assert found["differs from"].startswith("llama (")
    assert found["checks"].endswith("lmzoo check mixtral")


def test_in_words_is_empty_where_nothing_is_known() -> None:
    facts = dataclasses.replace(gather("bigram"), family=Family("bigram"))
    facts.__dict__["source"] = ""
    found = in_words(facts)
    assert [name for name, text in found.items() if not text] == ["measured", "measured by", "uses", "differs from"]
