"""xLSTM 7B; tests/hf/test_load.py compares the logits of more settings with transformers' xLSTMForCausalLM."""

from __future__ import annotations

import math

import pytest
import torch

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.xlstm import XLSTM
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 13, "d_model": 32}


def test_xlstm_large_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("xlstm", **case_keys("xlstm"))
    config = Config(theirs.config.to_dict())
    weights, settings = XLSTM.weights_for(config), XLSTM.settings(config, frozenset(config))
    ours = ours_with_weights_of(theirs, "xlstm_large", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    theirs.config.use_cache = False  # their cache takes widths that are multiples of 64
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_xlstm_large_initialization_follows_the_authors() -> None:
    model = lmzoo.create_model("xlstm_large", vocab_size=300, d_model=128, n_layers=3, d_ff=96)
    small = math.sqrt(2 / (5 * 128))
    mixer, mlp = (residual.inner for residual in model.blocks[0])
    stds = {
        model.tokens: small,
        model.head.linear: small,
        mixer.qkv: small,
        mlp.up: small,
        mixer.out: 2 / (3 * math.sqrt(128)),
        mlp.down: 2 / (3 * math.sqrt(96)),
    }
    for module, std in stds.items():
        assert abs(module.weight.std() / std - 1) < 0.05


def test_xlstm_large_7b_has_the_number_of_parameters_of_its_configuration() -> None:
    mixer = 4096 * (2 * 2048 + 2 * 4096 + 16) + 16 + 4096 + 4096 * 4096
    expected = 2 * 50304 * 4096 + 32 * (mixer + 3 * 4096 * 10944 + 2 * 4096) + 4096
    assert lmzoo.create_model("xlstm_large.xlstm-7b", device="meta").num_params() == expected


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"qk_dim": 18}, "n_heads=4 must divide qk_dim=18"),
        ({"v_dim": 18}, "n_heads=4 must divide v_dim=18"),
        ({"gate_cap": 0.0}, r"gate_cap=0\.0 must be above 0"),
        ({"logit_cap": -1.0}, r"logit_cap=-1\.0 must be above 0"),
    ],
)
def test_xlstm_large_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("xlstm_large", **SIZES, **settings)
