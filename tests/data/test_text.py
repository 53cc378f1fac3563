"""Tests of reading text in chunks: whole characters, cuts between words, exact splits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.data.text import file_span, read_text, split_at, whole_words, word_end
from lmzoo.errors import DataError

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("shift", range(4))
def test_read_text_yields_small_chunks_that_never_cut_a_character(write: Write, shift: int) -> None:
    text = "a" * shift + "𠮷" * 600_000
    chunks = list(read_text([file_span(write("big.txt", text))]))
    assert "".join(chunks) == text
    assert len(chunks) > 2
    assert max(len(chunk.encode()) for chunk in chunks) <= 1 << 20


def test_read_text_refuses_a_file_that_became_shorter(write: Write) -> None:
    path = write("a.txt", "some text")
    span = file_span(path)
    path.write_text("some")
    with pytest.raises(DataError, match=re.escape(f"{path}: the file became shorter")):
        list(read_text([span]))


@pytest.mark.parametrize("n_chars", [0, 1, 2, 3, 7, 8])
def test_split_at_cuts_after_n_characters(write: Write, n_chars: int) -> None:
    spans = [file_span(write("a.txt", "说a𠮷")), file_span(write("b.txt", "b说书cd"))]
    parts = ["".join(read_text(part)) for part in split_at(spans, n_chars)]
    assert parts == ["说a𠮷b说书cd"[:n_chars], "说a𠮷b说书cd"[n_chars:]]


@pytest.mark.parametrize(
    ("text", "stop", "end"),
    [("one two three", 10, 7), ("one two", 3, 3), ("one  two", 5, 3), ("说说说说", 2, 2), ("  one", 4, 4)],
)
def test_word_end_is_before_white_space_that_follows_a_word(text: str, stop: int, end: int) -> None:
    assert word_end(text, stop) == end


def test_whole_words_never_splits_a_word() -> None:
    chunks = list(whole_words(["one tw", "o thr", "ee", " four"]))
    assert "".join(chunks) == "one two three four"
    assert all(chunk[0] == " " for chunk in chunks[1:])
    assert len(chunks) > 1
