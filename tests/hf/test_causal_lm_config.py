"""Tests of the config of models of lmzoo in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

import lmzoo
from lmzoo.errors import CheckpointError
from lmzoo.hf.causal_lm import LmzooForCausalLM
from lmzoo.hf.causal_lm_config import LmzooConfig


def test_config_describes_the_model_and_nothing_else(tmp_path: Path) -> None:
    lmzoo.hf.register()
    fingerprint = {"fingerprint": [1.0]}
    content = {"lmzoo": 1, "model": "bigram", "config": {"vocab_size": 5, "context_length": 8}}
    config = LmzooConfig(lmzoo={**content, **fingerprint}, eos_token_id=3)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is LmzooConfig
    assert (loaded.lmzoo, loaded.vocab_size, loaded.max_position_embeddings, loaded.eos_token_id) == (content, 5, 8, 3)
    assert AutoModelForCausalLM.from_config(loaded).generation_config.eos_token_id == 3
    for wrong, message in (
        ({"lmzoo": content, "vocab_size": 6}, "vocab_size=6 must be 5, as under the key lmzoo$"),
        ({"lmzoo": {**content, "model": "bigramm"}}, "'bigramm' is unknown"),
        ({"lmzoo": {**content, "config": {"vocab_size": -5}}}, "vocab_size=-5"),
        ({"lmzoo": ["bigram"]}, r"must hold lmzoo \(1\), model and config$"),
    ):
        with pytest.raises(CheckpointError, match=message):
            LmzooConfig(**wrong)
    with pytest.raises(CheckpointError, match=r"must hold lmzoo \(1\), model and config$"):
        LmzooForCausalLM(LmzooConfig())
