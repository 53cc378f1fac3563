"""The text of single tokens, as a page shows it: parts of characters, spaces and control characters are visible."""

from __future__ import annotations

from collections.abc import Sequence

from lmzoo import humanize
from lmzoo.data.tokenizers import Tokenizer

VISIBLE = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍"}  # in a text
NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣"}  # in a list, where a space must be seen
KEPT = "\u200c\u200d"  # joiners, without which some scripts cannot be written


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Returns the text of each token; the bytes of a character that a later token completes are in hexadecimal.

    So the pieces of a Chinese text in bytes are `⟨E4⟩`, `⟨BD⟩`, `你`.
    """
    decoder = tokenizer.stream()
    return [decoder.feed(token) or hexadecimal(tokenizer.token_bytes(token)) for token in ids]


def text_of(content: bytes) -> str:
    """Returns the text of a token, or its bytes in hexadecimal if they are a part of a character."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return hexadecimal(content)


def hexadecimal(content: bytes) -> str:
    """Returns bytes as `⟨E4 BD⟩`."""
    return f"⟨{content.hex(' ').upper()}⟩"


def shown(text: str) -> str:
    """Returns the text of a token in a text: line breaks and tabs are marked, other control characters escaped."""
    return "".join(VISIBLE.get(char) or humanize.plain(char, keep=KEPT) for char in text)


def named(text: str) -> str:
    """Returns the text of a token in a list: its spaces are marked, too."""
    return "".join(NAMED.get(char) or humanize.plain(char, keep=KEPT) for char in text)
