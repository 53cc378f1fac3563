"""Nemotron-H; tests/hf/test_load.py compares the logits of more settings with transformers' NemotronHForCausalLM."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.nemotron_h import NEMOTRON_H
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 13, "d_model": 32}


def test_nemotron_h_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("nemotron_h", **case_keys("nemotron_h", "groups"))
    config = Config(theirs.config.to_dict())
    weights, settings = NEMOTRON_H.weights_for(config), NEMOTRON_H.settings(config, frozenset(config))
    ours = ours_with_weights_of(theirs, "nemotron_h", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_nemotron_h_layers_follow_the_pattern() -> None:
    model = lmzoo.create_model("nemotron_h", **SIZES, n_layers=4, pattern="mamba2 mlp attention")
    assert [type(block.inner).__name__ for block in model.blocks] == ["Mamba2", "MLP", "Attention", "Mamba2"]
    assert model.blocks[2].inner.rope is None
    assert model.blocks[0].inner.dt_min == 1e-3


def test_nemotron_h_8b_is_the_published_model() -> None:
    preset = registry.families()["nemotron_h"].presets["nemotron-h-8b"].model
    letters = "".join({"mamba2": "M", "attention": "*", "mlp": "-"}[word] for word in preset["pattern"].split())
    assert letters == "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
    inner = 8192 + 2 * 8 * 128
    mamba = 4096 * (8192 + inner + 128) + 5 * inner + 3 * 128 + 8192 + 8192 * 4096
    attention, mlp = 2 * 4096 * 4096 + 2 * 4096 * 1024, 2 * 4096 * 21504
    expected = 2 * 131072 * 4096 + 24 * mamba + 24 * mlp + 4 * attention + 53 * 4096
    assert lmzoo.create_model("nemotron_h.nemotron-h-8b", device="meta").num_params() == expected


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "mamba2 moe"}, "pattern='mamba2 moe'"),
        ({"ssm_heads": 5}, "ssm_heads=5 must divide d_ssm=64"),
        ({"ssm_groups": 3}, "ssm_groups=3 must divide ssm_heads=8"),
        ({"n_kv_heads": 3}, "n_kv_heads=3 must divide n_heads=4"),
        ({"dt_min": -0.1}, "dt_min=-0.1"),
        ({"expert_groups": 3}, "expert_groups=3 must divide n_experts=8"),
        ({"top_groups": 2}, "top_groups=2 must be at most expert_groups=1"),
        ({"top_k": 9}, "top_k=9 must be at most the 8 experts of top_groups=1"),
    ],
)
def test_nemotron_h_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("nemotron_h", **SIZES, **settings)
