"""Settings: each rule names field, value and rule; overrides find their table."""

from __future__ import annotations

from typing import Any

import pytest

from lmzoo import configs, registry
from lmzoo.errors import ConfigError, DataError, UnknownModelError
from lmzoo.runs.spec import apply_settings, make_spec
from lmzoo.train.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 must be a positive integer"),
        ({"steps": "many"}, "steps='many': input should be a valid integer"),
        ({"batch_size": -1}, "batch_size=-1 must be a positive integer"),
        ({"grad_accumulation": 0}, "grad_accumulation=0 must be a positive integer"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
        ({"min_learning_rate": 2.0}, r"min_learning_rate=2.0 must be in \[0, learning_rate=0.001\]"),
        ({"warmup_steps": 3000}, r"warmup_steps=3000 must be in \[0, steps=2000\]"),
        ({"weight_decay": -0.1}, r"weight_decay=-0.1 must be in \[0, inf\)"),
        ({"grad_clip": -1.0}, r"grad_clip=-1.0 must be in \[0, inf\)"),
        ({"beta2": 1.0}, r"beta2=1.0 must be in \[0, 1\)"),
        ({"seed": -1}, r"seed=-1 must be in \[0,"),
        ({"eval_every": 0}, "eval_every=0 must be a positive integer"),
        ({"eval_tokens": 0}, "eval_tokens=0 must be a positive integer"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0 must be a positive integer"),
        ({"precision": "fp8"}, "precision='fp8': input should be 'auto', 'float32' or 'bf16'"),
        ({"schedule": "step"}, "schedule='step': input should be 'cosine', 'linear', 'wsd' or 'constant'"),
        ({"optimizer": "sgd"}, "optimizer='sgd': input should be 'adamw' or 'muon'"),
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        configs.build(TrainConfig, settings)
    assert "\n" not in str(caught.value)


def test_what_none_stands_for() -> None:
    config = TrainConfig(steps=400, learning_rate=0.5)
    assert (config.warmup, config.final_learning_rate) == (20, 0.05)
    assert (config.eval_interval, config.checkpoint_interval) == (40, 40)
    assert TrainConfig(steps=100_000).warmup == 100
    assert TrainConfig(steps=3).eval_interval == 1
    assert TrainConfig(eval_every=7).checkpoint_interval == 7


def test_overrides_find_their_table() -> None:
    keys = {"d_model": 32, "steps": 5, "model.n_heads": 2, "train.seed": 7}
    assert apply_settings("gpt2", keys) == ({"d_model": 32, "n_heads": 2}, {"steps": 5, "seed": 7})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("d_modle", "did you mean 'd_model'"),
        ("model.stepps", "model.stepps=1 is not a setting"),
        ("train.d_model", "train.d_model=1 is not a setting"),
        ("optimizer.beta1", "is not a setting of gpt2 or the training"),
        ("vocab_size", "vocab_size=1 cannot be set: it is that of the tokenizer"),
        ("model.vocab_size", "it is that of the tokenizer"),
    ],
)
def test_unknown_overrides(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_settings("gpt2", {key: 1})


def test_presets_give_the_recipe_and_overrides_win() -> None:
    spec = make_spec("gpt2.tiny", "x.txt")
    assert spec.train.learning_rate == registry.recipe("gpt2.tiny")["learning_rate"] != TrainConfig().learning_rate
    assert make_spec("gpt2", "x.txt").train.learning_rate == registry.recipe("gpt2")["learning_rate"]
    assert make_spec("gpt2.tiny", "x.txt", overrides={"learning_rate": 0.1}).train.learning_rate == 0.1
    config = make_spec("gpt2.tiny", "x.txt", overrides={"d_model": 32}).model_config(65)
    assert configs.to_dict(config) | {"n_layers": 2, "d_model": 32, "vocab_size": 65} == configs.to_dict(config)


def test_specs_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="n_heads=3 must divide d_model=128"):
        make_spec("gpt2", "x.txt", overrides={"n_heads": 3})
    with pytest.raises(UnknownModelError, match="did you mean 'gpt2'"):
        make_spec("gpt3", "x.txt")
    with pytest.raises(DataError, match="unknown tokenizer 'words'"):
        make_spec("gpt2", "x.txt", tokenizer="words")
