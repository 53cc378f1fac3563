"""Falcon-H1; tests/hf/test_load.py compares the logits of more settings with transformers' FalconH1ForCausalLM."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.backbones.falcon_h1 import SCALES
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.falcon_h1 import FALCON_H1
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 13, "d_model": 32, "n_layers": 1}


def test_falcon_h1_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("falcon_h1", **case_keys("falcon_h1", "norm first"))
    config = Config(theirs.config.to_dict())
    weights, settings = FALCON_H1.weights_for(config), FALCON_H1.settings(config, frozenset(config))
    ours = ours_with_weights_of(theirs, "falcon_h1", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_falcon_h1_multiplies_each_part_by_its_factor() -> None:
    """With factors of one, a factor of two changes the logits; of the logits themselves, it doubles them."""
    ones = dict.fromkeys(SCALES, 1.0)
    plain = lmzoo.create_model("falcon_h1", **SIZES, **ones).double()
    idx = random_tokens(13, 1, 9)
    expected = plain(idx).logits
    for scale in SCALES:
        changed = lmzoo.create_model("falcon_h1", **SIZES, **{**ones, scale: 2.0}).double()
        changed.load_state_dict(plain.state_dict())
        logits = changed(idx).logits
        assert not torch.allclose(logits, expected, rtol=1e-6), scale
        if scale == "logit_scale":
            torch.testing.assert_close(logits, 2 * expected)


def test_falcon_h1_500m_has_the_number_of_parameters_of_its_configuration() -> None:
    attention = 1024 * (8 + 2 * 2) * 64 + 8 * 64 * 1024
    inner = 1536 + 2 * 128
    mamba = 1024 * (1536 + inner + 24) + 5 * inner + 3 * 24 + 1536 * 1024
    expected = 2 * 32784 * 1024 + 36 * (attention + mamba + 3 * 1024 * 2048 + 2 * 1024) + 1024
    assert lmzoo.create_model("falcon_h1.falcon-h1-500m", device="meta").num_params() == expected


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"d_ssm": 30}, "ssm_heads=4 must divide d_ssm=30"),
        ({"ssm_groups": 3}, "ssm_groups=3 must divide ssm_heads=4"),
        ({"head_dim": 5}, "head_dim=5 must be even to be rotated"),
        ({"key_scale": 0.0}, r"key_scale=0\.0 must be above 0"),
        ({"ssm_norm": "last"}, "ssm_norm='last'"),
    ],
)
def test_falcon_h1_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("falcon_h1", **SIZES, **settings)
