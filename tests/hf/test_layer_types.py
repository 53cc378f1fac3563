"""Tests of the key with a word for each layer."""

from __future__ import annotations

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.layer_types import layer_types, words_of

KNOWN = {"full_attention": "full", "linear_attention": "delta"}


def by_number(config: Config) -> list[str]:
    return ["full" if layer == config.value("first", 0) else "delta" for layer in range(config.layers())]


def test_layer_types_come_before_the_rule() -> None:
    pattern = layer_types(KNOWN, by_number, others=("first",))
    words = ["full_attention", "linear_attention", "full_attention"]
    assert pattern.keys == ("layer_types", "first")
    assert pattern.settings(Config(num_hidden_layers=3, layer_types=words)) == {"pattern": "full delta full"}
    assert pattern.settings(Config(num_hidden_layers=3, layer_types=None, first=1)) == {"pattern": "delta full delta"}
    assert words_of(pattern, Config(num_hidden_layers=2)) == ["full", "delta"]


def test_layer_types_must_be_given_without_a_rule() -> None:
    pattern = layer_types(KNOWN, key="kinds")
    for given, error in (
        ({}, r"^kinds=\[\] must have a word for each of 2"),
        ({"kinds": ["x", "x"]}, "^kinds='x' must be one of"),
    ):
        with pytest.raises(CheckpointError, match=error):
            pattern.settings(Config(num_hidden_layers=2, **given))


def test_layer_types_are_read_backwards() -> None:
    pattern = layer_types(KNOWN, by_number)
    assert pattern.inverse_of({"pattern": ["delta", "full"]}) == {"layer_types": ["linear_attention", "full_attention"]}
    assert pattern.inverse_of({"pattern": ["delta", "window"]}) == {}, "no word is known"
