"""Tests of reading text in chunks: whole characters, cuts between words, exact splits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.errors import DataError

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("shift", range(4))
def test_read_text_yields_small_chunks_that_never_cut_a_character(write: Write, shift: int) -> None:
    text = "a" * shift + "𠮷" * 600_000
    corpus = load_corpus(str(write("big.txt", text)))
    pieces = list(corpus.chunks())
    assert "".join(pieces) == text
    assert len(pieces) > 2
    assert max(len(piece.encode()) for piece in pieces) <= 1 << 20
    assert "".join(corpus.chunks("train")) == text[: int(0.9 * len(text))]


def test_read_text_refuses_a_file_that_became_shorter(write: Write) -> None:
    path = write("a.txt", "some text")
    corpus = load_corpus(str(path))
    path.write_text("some")
    with pytest.raises(DataError, match=re.escape(f"{path}: the file became shorter")):
        list(corpus.chunks())
