"""Tests of `lmzoo.gallery.page`: the sections of a family's page, and the page as one file."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lmzoo.conformance import check_names
from lmzoo.entries import Family
from lmzoo.gallery.facts import gather
from lmzoo.gallery.page import all_bits, asset, highlighted, lead, sections, standalone

VOID = {"meta", "img", "br", "hr"}
DRAWN = {"path", "rect", "circle", "mspace"}  # elements of SVG and MathML that may close themselves


class Tags(HTMLParser):
    """Fails unless every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in DRAWN, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("family", ["bigram", "mamba", "hybrid"])
def test_standalone_is_whole_html_without_a_script(family: str) -> None:
    text = standalone(gather(family))
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!https://arxiv\.org/|#)[^"]*"', text)


def test_sections_come_in_order() -> None:
    titles = [section.title for section in sections(gather("mixtral"))]
    assert titles[:6] == ["The idea", "The equations", "The blocks", "The state while decoding", "Measured", "Checks"]
    assert titles[-3:] == ["The code", "Differs from", "BibTeX"]
    assert len(set(titles)) == len(titles)


def test_sections_name_every_check_of_the_suite() -> None:
    (checks,) = (section.body for section in sections(gather("gpt2")) if section.title == "Checks")
    found = set(re.findall(r">(\w+)</code>", checks))
    assert found == {name for name in check_names() if not name.startswith("own_")}


def test_sections_of_a_family_without_card_results_papers_and_source() -> None:
    facts = dataclasses.replace(gather("bigram"), family=Family("bigram"))
    facts.__dict__["source"] = ""
    titles = [section.title for section in sections(facts)]
    assert titles == ["The blocks", "The state while decoding", "Measured", "Checks"]


def test_page_escapes_what_the_entry_says(tmp_path: Path) -> None:
    hostile = "</pre></script><script>alert(1)</script>"
    (tmp_path / "card.md").write_text(f"**The idea.** {hostile}\n\n**The equations.** {hostile}\n\n    x = {hostile}\n")
    (tmp_path / "papers.bib").write_text(hostile)
    (tmp_path / "results.json").write_text('{"bits_per_byte": 2.0, "problem": "<script>", "preset": "<script>"}')
    words = {"title": hostile, "summary": hostile, "kind": hostile}
    facts = gather("bigram")
    facts = dataclasses.replace(facts, family=dataclasses.replace(facts.family, folder=tmp_path, facts=words))
    assert "<script" not in standalone(facts)


def test_lead_says_what_a_token_uses_of_experts() -> None:
    assert "for a token" in lead(gather("mixtral"))
    assert "for a token" not in lead(gather("llama"))
    plain = dataclasses.replace(gather("bigram"), family=Family("bigram"))
    assert lead(plain).startswith('<dl class="facts card"><div>'), "without a summary"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("bigram", "There is none: bytes"),
        ("mamba", "Its size is constant: bytes"),
        ("gpt2", "Its growth is linear up to 128 tokens, its context: bytes"),
        ("llama", "Its growth is linear: bytes"),
    ],
)
def test_sections_say_how_the_state_grows(family: str, words: str) -> None:
    (body,) = (section.body for section in sections(gather(family)) if section.title == "The state while decoding")
    assert words in body
    assert ("thin bars" in body) == (family != "llama"), "the family that others are drawn beside"


def test_all_bits_are_those_of_measured_families() -> None:
    assert all_bits() == sorted(all_bits())
    assert gather("gpt2").family.results["bits_per_byte"] in all_bits()


def test_highlighted_escapes() -> None:
    assert "&lt;" in highlighted("a < b")


def test_asset_is_text() -> None:
    assert ".equations" in asset("gallery.css")
