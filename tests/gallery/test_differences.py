"""Tests of `lmzoo.gallery.differences`: related families, and the lines that differ."""

from __future__ import annotations

import dataclasses

from lmzoo.gallery.differences import (
    MOST,
    compared,
    counts,
    difference_html,
    lines_of_both,
    named,
    nearest,
    sources,
)
from lmzoo.gallery.facts import gather


def test_named_finds_titles_as_whole_words() -> None:
    assert named(gather("mixtral"))[:1] == ["llama"]
    assert "mamba" in named(gather("hybrid"))
    facts = dataclasses.replace(gather("bigram"))
    facts.__dict__["source"] = '"""Mamba-2 after Llama; no Llamas, no xMamba."""'
    assert named(facts) == ["mamba2", "llama"]


def test_nearest_is_first_the_family_with_the_same_code() -> None:
    facts = gather("llama")
    twin = dataclasses.replace(facts, family=dataclasses.replace(facts.family, name="twin"))
    assert nearest(twin)[0] == "llama"
    assert "llama" not in nearest(facts)


def test_compared_begins_with_named_families() -> None:
    found = compared(gather("mixtral"))
    assert len(found) == len(set(found)) == MOST
    assert found[0] == "llama"


def test_lines_of_both_give_both_sources_back() -> None:
    old, new = sources()["llama"], sources()["mixtral"]
    lines = lines_of_both(old, new)
    assert [text for sign, text in lines if sign != "+"] == old.splitlines()
    assert [text for sign, text in lines if sign != "-"] == new.splitlines()
    assert counts([("-", "a"), ("+", "b"), ("+", "c"), (" ", "d")]) == "1 lines removed, 2 added"


def test_difference_html_escapes() -> None:
    text = difference_html([("-", "a < b"), ("+", "<script>"), (" ", "c")])
    assert text == '<pre class="diff"><del>- a &lt; b\n</del><ins>+ &lt;script&gt;\n</ins><span>  c\n</span></pre>'
