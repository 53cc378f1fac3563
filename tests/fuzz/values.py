"""Draws values that programs often do not expect: numbers, texts, names of files, and things of a wrong kind."""

from __future__ import annotations

import random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, 1, 2, 3, 7, 16, -1, -7, 255, 256, 1 << 31, (1 << 40) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64,
    10**18, 10**100, 10**400, 0.0, 0.5, 1.0, -0.5, 1e-300, 1e38, 1e308, float("inf"), float("-inf"), float("nan"),
    True, False,
)  # fmt: skip
PIECES = (
    "a", "the sheep ", "\n", "\t", "\r", " ", "\0", "\x1b[2J", "\x7f", "\x9b", "é", "中文",
    "\U0001f469\u200d\U0001f4bb",
    "\u202e", "\u2028", "\ufeff", "\udcff", "'", '"', "\\", "/", "..", "~", "$HOME", "%s", "{0}", "*", "?", "[", "]",
    "#",
    "=", ",", ":", "<b>", "|", "none", "0", "-1", "1e9",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, "", "none", [], [1], [[1]], {}, {"a": 1}, (1, 2), b"bytes", {1}, 1j, object(), print)


def number(draw: random.Random) -> Any:
    """Draws a number, most of them at a limit. As a number of tokens, one below 1,000 is generated in a few seconds."""
    return draw.choice(NUMBERS) if draw.random() < 0.9 else draw.randrange(-1000, 1000)


def text(draw: random.Random, *, encodable: bool = False, nul: bool = True) -> str:
    """Draws a text with control characters, other scripts, lone surrogates and syntax; sometimes a long one."""
    found = "".join(draw.choices(PIECES, k=draw.choice((0, 1, 1, 2, 3, 8))))
    if draw.random() < 0.03:
        found *= draw.choice((100, 5000))
    if encodable:
        found = found.encode(errors="ignore").decode()
    return found if nul else found.replace("\0", "")


def anything(draw: random.Random) -> Any:
    """Draws a number, a text, or a thing of a wrong kind."""
    kind = draw.random()
    return number(draw) if kind < 0.5 else text(draw) if kind < 0.7 else draw.choice(OTHERS)


def toml(draw: random.Random) -> str:
    """Draws the text of a TOML value, or something like one."""
    special = ("[" * 3000, "1" * 5000, "1979-05-27", "07:32:00", "nan", "inf", "-inf", "1_000", "0x10", "{a = 1}",
               "[1, 2]", '"', "'x'", "true", "none", "", "1\nb = 2", "bf16", "muon", "wsd", "fsdp")  # fmt: skip
    kind = draw.random()
    if kind < 0.5:
        value = number(draw)
        return str(value).lower() if not isinstance(value, int) or abs(value) < 10**300 else "1" + "0" * 400
    return draw.choice(special) if kind < 0.8 else text(draw, nul=False)


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Draws a changed content: bits, a cut, a repetition, other numbers, other content."""
    kind = draw.randrange(7)
    place = draw.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + draw.randbytes(draw.choice((1, 8, 100))) + content[place:]
    if kind == 2 and content:
        changed = bytearray(content)
        for _ in range(draw.choice((1, 3, 20))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == 3:
        return draw.choice(
            (b"", b"{}", b"[]", b"null", b"\xff" * 50, b"[" * 100_000, b"1" * 5000, b"a = " + b"[" * 9999)
        )
    if kind == 4:
        words = content.split(b" ")
        words[draw.randrange(len(words))] = toml(draw).encode(errors="surrogateescape")
        return b" ".join(words)
    if kind == 5:
        lines = content.split(b"\n")
        del lines[draw.randrange(len(lines))]
        return b"\n".join(lines)
    return content.replace(b"1", str(draw.choice((0, -1, 10**18, 10**400))).encode(), draw.randrange(1, 4))
