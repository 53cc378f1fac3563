"""Tests the training settings: errors name field, value and rule; each None is replaced by a number."""

from __future__ import annotations

from typing import Any

import pytest

from lmzoo import configs
from lmzoo.errors import ConfigError
from lmzoo.train.config import ResolvedTrainConfig, TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 must be a positive integer"),
        ({"steps": "many"}, "steps='many': input should be a valid integer"),
        ({"batch_size": -1}, "batch_size=-1 must be a positive integer"),
        ({"grad_accumulation": 0}, "grad_accumulation=0 must be a positive integer"),
        ({"seed": -1}, r"seed=-1 must be in \[0, 9223372036854775807\]"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a finite number above 0"),
        ({"min_learning_rate": 2.0}, r"min_learning_rate=2.0 must be in \[0, learning_rate=0.001\]"),
        ({"warmup_steps": 3000}, r"warmup_steps=3000 must be in \[0, steps=2000\]"),
        ({"weight_decay": -0.1}, r"weight_decay=-0.1 must be in \[0, inf\)"),
        ({"grad_clip": -1.0}, r"grad_clip=-1.0 must be in \[0, inf\)"),
        ({"beta2": 1.0}, r"beta2=1.0 must be in \[0, 1\)"),
        ({"seed": -1}, r"seed=-1 must be in \[0,"),
        ({"eval_every": 0}, "eval_every=0 must be a positive integer"),
        ({"checkpoint_every": 0}, "checkpoint_every=0 must be a positive integer"),
        ({"eval_tokens": -1}, r"eval_tokens=-1 must be in \[0, inf\)"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0 must be a positive integer"),
        ({"precision": "fp8"}, "precision='fp8': input should be 'auto', 'float32' or 'bf16'"),
        ({"schedule": "step"}, "schedule='step': input should be 'cosine', 'linear', 'wsd' or 'constant'"),
        ({"optimizer": "sgd"}, "optimizer='sgd': input should be 'adamw' or 'muon'"),
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
    ],
)
def test_train_config_refuses_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        configs.build(TrainConfig, settings)
    assert "\n" not in str(caught.value)


def test_resolved_replaces_each_none_by_a_number() -> None:
    config = TrainConfig(steps=400, learning_rate=0.5).resolved()
    assert (config.warmup_steps, config.min_learning_rate) == (20, 0.05)
    assert (config.eval_every, config.checkpoint_every) == (40, 40)
    assert TrainConfig(steps=100_000).resolved().warmup_steps == 100
    assert TrainConfig(steps=3).resolved().eval_every == 1
    assert TrainConfig(eval_every=7).resolved().checkpoint_every == 7
    assert None not in configs.to_dict(config).values()


def test_resolved_has_a_final_rate_as_people_write_it() -> None:
    for rate, tenth in ((0.003, "0.0003"), (0.006, "0.0006"), (7e-4, "7e-05"), (1e-3, "0.0001"), (2, "0.2")):
        assert repr(TrainConfig(learning_rate=rate).resolved().min_learning_rate) == tenth


def test_resolved_keeps_given_settings() -> None:
    given = TrainConfig(steps=7, min_learning_rate=0.0, warmup_steps=0, eval_every=2, checkpoint_every=3, seed=5)
    assert configs.to_dict(given.resolved()) == configs.to_dict(given)
    assert given.resolved().resolved() == given.resolved()


def test_resolved_train_config_has_no_defaults_for_derived_settings() -> None:
    with pytest.raises(ConfigError, match="min_learning_rate must be given to ResolvedTrainConfig"):
        configs.build(ResolvedTrainConfig, {"steps": 5})


def test_train_config_reads_none_as_not_given() -> None:
    assert configs.build(TrainConfig, {"steps": 400, "warmup_steps": "none"}).resolved().warmup_steps == 20


def test_train_config_refuses_muon_with_fsdp() -> None:
    TrainConfig(optimizer="muon", parallel="ddp")
    with pytest.raises(ConfigError, match="optimizer='muon' needs whole matrices, parallel='fsdp' cuts them"):
        TrainConfig(optimizer="muon", parallel="fsdp")
