"""Patterns of layers: repetition and errors."""

from __future__ import annotations

import pytest

from lmzoo.errors import ConfigError
from lmzoo.layers.pattern import pattern

KNOWN = ("mamba", "swa", "swa+moe")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mamba", ["mamba"] * 5),
        ("mamba*2 swa", ["mamba", "mamba", "swa", "mamba", "mamba"]),
        ("swa+moe mamba", ["swa+moe", "mamba", "swa+moe", "mamba", "swa+moe"]),
        ("mamba*1 swa", ["mamba", "swa", "mamba", "swa", "mamba"]),
        ("mamba*99", ["mamba"] * 5),
    ],
)
def test_pattern_repeats_to_the_depth(text: str, words: list[str]) -> None:
    assert pattern(text, 5, KNOWN) == words
    assert pattern(text, 5, iter(KNOWN)) == words


@pytest.mark.parametrize(
    "text", ["mamba attention", "mamba*x", "mamba*0", "mamba*", "mamba*-1", "swa*²", "mamba*1000000"]
)
def test_pattern_names_the_wrong_word(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be one of mamba, swa, swa\+moe, or WORD\*N to repeat it"):
        pattern(text, 2, KNOWN)


def test_pattern_must_name_a_layer() -> None:
    with pytest.raises(ConfigError, match="pattern=' ' must name at least one of mamba"):
        pattern(" ", 2, KNOWN)


def test_pattern_is_bounded() -> None:
    with pytest.raises(ConfigError, match="n_layers=1000000000 must be at most"):
        pattern("a", 10**9, ["a"])
    with pytest.raises(ConfigError, match="names more than 65536 layers"):
        pattern("a*65536 a", 1, ["a"])
    assert len(pattern("a*65536", 65536, ["a"])) == 65536


def test_pattern_parts_must_be_known() -> None:
    assert pattern("mamba&swa swa", 3, KNOWN, lambda word: word.split("&")) == ["mamba&swa", "swa", "mamba&swa"]
    with pytest.raises(ConfigError, match="'mamba&conv' must be one of mamba"):
        pattern("mamba&conv", 2, KNOWN, lambda word: word.split("&"))
