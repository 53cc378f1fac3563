"""Tests the suggestions for unknown names."""

from __future__ import annotations

import dataclasses

import pytest

from lmzoo import registry
from lmzoo.sampling_config import SamplingConfig
from lmzoo.suggestions import ALIASES, nearest, suggest, suggest_model
from lmzoo.train.config import TrainConfig

MODELS = ["bigram", "bigram.tiny", "gpt2", "gpt2.tiny", "hybrid", "hybrid.tiny", "llama", "lstm", "lstm.tiny"]


def test_suggest_names_the_nearest_or_all_known_names() -> None:
    assert suggest("d_modl", ["d_model", "n_heads"]) == "; did you mean 'd_model'?"
    assert suggest("xyz", ["b", "a"]) == "; known: a, b"
    assert suggest("xyz", []) == ""
    assert suggest(None, ["b", "a"]) == "; known: a, b"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "learning_rate"), ("hidden_size", "d_model"), ("n_embd", "d_model"), ("n_head", "n_heads")],
)
def test_nearest_knows_names_of_other_libraries(name: str, meant: str) -> None:
    known = ["batch_size", "d_model", "learning_rate", "min_learning_rate", "n_heads", "n_kv_heads"]
    assert nearest(name, known) == meant


def test_aliases_stand_for_names_that_exist() -> None:
    settings = {field.name for kind in (TrainConfig, SamplingConfig) for field in dataclasses.fields(kind)}
    for family in registry.families():
        settings |= {field.name for field in dataclasses.fields(registry.model_class(family).config_class)}
    known = {*settings, *registry.families(), "max_new_tokens"}
    for alias, meant in ALIASES.items():
        assert {*meant} <= known, alias
        assert alias not in known


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("rwkv.tiny", "; known: bigram, gpt2, hybrid, llama, lstm"),
        ("gtp2.tiny", "; did you mean 'gpt2.tiny'?"),
        ("gtp2.large", "; did you mean 'gpt2'?"),
        ("gpt.tiny", "; did you mean 'gpt2.tiny'?"),
        ("transformer", "; did you mean 'gpt2'?"),
        ("GPT2", "; did you mean 'gpt2'?"),
    ],
)
def test_suggest_model_compares_families(name: str, answer: str) -> None:
    assert suggest_model(name, MODELS) == answer
