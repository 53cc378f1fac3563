"""Formats numbers for people: 10.65 M, 1.2 k tokens/s, 3 min 20 s; and escapes text from outside."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

MISSING = "–"
WORD_CHARACTERS = 200  # a longer word in a message is cut in its middle
LINE_CHARACTERS = 2000  # a longer message is cut at its end
# Categories that are escaped: control, format (text direction among them), surrogate, line and paragraph separator.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def count(value: float | None, *, digits: int = 3) -> str:
    """Format a large number with `digits` significant digits and its unit: 812, 9.87 k, 10.7 M."""
    if value is None:
        return MISSING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # The unit is chosen after rounding: 999.9 thousand is shown as 1.00 M, not as 1000 k.
        if abs(value) >= size * (1 - 0.5 * 10**-digits):
            return f"{_significant(value / size, digits)} {unit}"
    return _significant(value, digits) if value % 1 else f"{value:.0f}"


def number(value: int, noun: str) -> str:
    """Format a number with its noun: 1 run, 2 runs, 1,200 tokens."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def size(value: float) -> str:
    """Format a number of bytes: 0 B, 16.4 kB, 1.05 MB."""
    return f"{count(value)}B" if value >= 999.5 else f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Format a duration in seconds: 4.2 s, 58 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def loss(value: float | None) -> str:
    """Format a loss, in nats or bits, with three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """Format a share in per cent: 0, below 0.01, or with two digits (15, 2.8) or decimals (0.42)."""
    value = 100 * share
    if value < 0.01:
        return "below 0.01" if value else "0"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def plain(text: str, *, keep: str = "") -> str:
    """Returns `text` with all characters escaped that a terminal would obey or hide, except for those in `keep`.

    Text from a file or an argument could otherwise move the cursor, hide a part of a message, or reverse its direction.
    """
    if text.isascii() and text.isprintable():
        return text
    found = {char for char in set(text).difference(keep) if unicodedata.category(char) in _ESCAPED}
    return text.translate({ord(char): repr(char)[1:-1] for char in found}) if found else text


def plain_json(text: str) -> str:
    """Returns JSON with the same values, in which characters that a terminal would obey are written as escapes."""
    if text.isascii() and "\x7f" not in text:  # JSON has no other control characters but line breaks
        return text
    return "".join(
        _json_escape(char) if char != "\n" and unicodedata.category(char) in _ESCAPED else char for char in text
    )


def finite(value: Any) -> Any:
    """Returns what JSON can hold, with None for a number that is not finite: JSON has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def line(text: str) -> str:
    """Returns `text` as one line for a message: `plain`, long words cut in their middle, a long text cut at its end."""
    words = [_cut(word) for word in plain(text).split(" ")]
    text = " ".join(words)
    return text if len(text) <= LINE_CHARACTERS else f"{text[: LINE_CHARACTERS - 1]}…"


def _json_escape(char: str) -> str:
    """Returns the escape of a character in JSON: two of them for one outside of the basic plane."""
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _cut(word: str) -> str:
    if len(word) <= WORD_CHARACTERS:
        return word
    half = (WORD_CHARACTERS - 1) // 2
    return f"{word[:half]}…{word[-half:]}"


def _significant(value: float, digits: int) -> str:
    decimals = max(0, digits - len(str(int(abs(value)))))
    text = f"{value:.{decimals}f}"
    if decimals and len(text.lstrip("-")) > digits + 1:  # 9.999 rounds up to 10.00: one digit too many
        text = f"{value:.{decimals - 1}f}"
    return text
