"""Tests the text of single tokens: parts of characters, marked spaces, control characters that are not obeyed."""

from __future__ import annotations

import pytest

from lmzoo.data.tokenizers import ByteTokenizer, train_tokenizer
from lmzoo.inspect.pieces import named, pieces_of, shown, text_of


def test_pieces_of_bytes_show_a_character_where_it_is_complete() -> None:
    tokenizer = ByteTokenizer()
    assert pieces_of(tokenizer, tokenizer.encode("a你")) == ["a", "⟨E4⟩", "⟨BD⟩", "你"]
    assert pieces_of(tokenizer, [0xFF, 0x61]) == ["\N{REPLACEMENT CHARACTER}", "a"]


def test_pieces_of_bpe_are_its_tokens() -> None:
    tokenizer = train_tokenizer("bpe:300", ["the cat and the dog " * 50])
    ids = tokenizer.encode("the cat")
    assert "".join(pieces_of(tokenizer, ids)) == "the cat"
    assert len(ids) < 7


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"cat", "cat"), (b"\xe4", "⟨E4⟩"), (b"\xe4\xbd", "⟨E4 BD⟩"), ("你".encode(), "你"), (b"", "")],
)
def test_text_of_bytes(content: bytes, text: str) -> None:
    assert text_of(content) == text


def test_shown_and_named_mark_what_cannot_be_seen() -> None:
    text = "a b\n\t\r\x1b[1m\u202e\u200d"
    assert shown(text) == "a b↵\n⇥\t␍\\x1b[1m\\u202e\u200d"
    assert named(text) == "a␣b↵⇥␍\\x1b[1m\\u202e\u200d"
