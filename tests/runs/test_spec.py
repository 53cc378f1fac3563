"""Tests the specification of a run: overrides, recipes, and the model that it makes."""

from __future__ import annotations

import pytest
import torch

from lmzoo import configs, registry
from lmzoo.errors import ConfigError, DataError, UnknownModelError
from lmzoo.runs.spec import apply_settings, make_spec
from lmzoo.train.config import TrainConfig


def test_apply_settings_finds_the_table_of_each_key() -> None:
    keys = {"d_model": 32, "steps": 5, "model.n_heads": 2, "train.seed": 7}
    assert apply_settings("gpt2", keys) == ({"d_model": 32, "n_heads": 2}, {"steps": 5, "seed": 7})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("d_modle", "did you mean 'd_model'"),
        ("model.stepps", "model.stepps=1 is not a setting"),
        ("train.d_model", "train.d_model=1 is not a setting"),
        ("optimizer.beta1", "is not a setting of gpt2 or the training"),
        ("vocab_size", "vocab_size=1 cannot be set: the tokenizer decides it"),
        ("model.vocab_size", "the tokenizer decides it"),
    ],
)
def test_apply_settings_refuses_unknown_keys(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_settings("gpt2", {key: 1})


def test_make_spec_takes_the_recipe_of_the_preset_and_overrides_win() -> None:
    spec = make_spec("gpt2.tiny", "x.txt")
    assert spec.train.learning_rate == registry.recipe("gpt2.tiny")["learning_rate"] != TrainConfig().learning_rate
    assert make_spec("gpt2", "x.txt").train.learning_rate == registry.recipe("gpt2")["learning_rate"]
    assert make_spec("gpt2.tiny", "x.txt", overrides={"learning_rate": 0.1}).train.learning_rate == 0.1
    config = make_spec("gpt2.tiny", "x.txt", overrides={"d_model": 32}).model_config(65)
    assert configs.to_dict(config) | {"n_layers": 2, "d_model": 32, "vocab_size": 65} == configs.to_dict(config)


def test_make_spec_refuses_impossible_specs() -> None:
    with pytest.raises(ConfigError, match="n_heads=3 must divide d_model=128"):
        make_spec("gpt2", "x.txt", overrides={"n_heads": 3})
    with pytest.raises(UnknownModelError, match="did you mean 'gpt2'"):
        make_spec("gpt-2", "x.txt")
    with pytest.raises(DataError, match="unknown tokenizer 'words'"):
        make_spec("gpt2", "x.txt", tokenizer="words")


def test_make_model_is_create_model() -> None:
    """The same config and the same weights; on "meta" without weights."""
    spec = make_spec("llama.tiny", "x.txt", overrides={"d_model": 32, "window": 8})
    ours = spec.make_model(65, generator=torch.Generator().manual_seed(3))
    theirs = registry.create_model(
        "llama.tiny", vocab_size=65, d_model=32, window=8, generator=torch.Generator().manual_seed(3)
    )
    assert ours.config == theirs.config == spec.model_config(65)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert spec.make_model(65, device="meta").device.type == "meta"


def test_make_spec_reads_none_as_no_value() -> None:
    """`--set window=none` is the only way to switch off an option of a preset."""
    spec = make_spec("llama", "x.txt", overrides={"window": "none", "train.warmup_steps": "none"})
    assert spec.model_config(65) == make_spec("llama", "x.txt").model_config(65)
    assert spec.train.warmup_steps is None


def test_run_spec_repr_is_one_line() -> None:
    spec = make_spec("gpt2.tiny", "novel.txt", overrides={"d_model": 32, "steps": 5})
    assert repr(spec) == "<run of gpt2.tiny on novel.txt, d_model=32, 5 steps, tokenizer char>"
