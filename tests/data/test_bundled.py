"""Tests of the texts in the package: they can be opened by name, and are what the documents say of them."""

from __future__ import annotations

import re

import pytest

from lmzoo.data.bundled import BUNDLED
from lmzoo.data.corpora import corpus_names, load_corpus


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_text_is_a_corpus(name: str) -> None:
    assert name in corpus_names()
    corpus = load_corpus(name)
    text = "".join(corpus.chunks())
    assert text == BUNDLED[name].read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not re.search(r"[ \t\r]\n|\n\n\n", text), "no white space at the ends of lines, no two empty lines"


def test_bundled_story_is_chinese() -> None:
    text = "".join(load_corpus("story-zh").chunks())
    assert len(text) == 1841  # as docs/data.md says
    assert len(re.findall("[\u4e00-\u9fff]", text)) > 0.8 * len(text)
