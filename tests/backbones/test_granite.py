"""Granite compared with transformers' GraniteForCausalLM; tests/hf/test_load.py compares more of its settings."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.granite import GRANITE
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}


def test_granite_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("granite", **case_keys("granite"))
    weights = {name: source for name, source in GRANITE.weights.items() if name != "head.weight"}
    scales = {"embedding_scale": 3.0, "attention_scale": 0.2, "residual_scale": 0.5, "logit_divisor": 1.6}
    settings = {**SIZES, **scales, "d_ff": 40, "norm_eps": 0.02, "rope_theta": 100.0, "tie_embeddings": False}
    ours = ours_with_weights_of(theirs, "granite", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_granite_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"granite.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within


def test_granite_2b_has_the_number_of_parameters_of_its_configuration() -> None:
    attention, mlp = 2048 * (2048 + 2 * 512) + 2048 * 2048, 3 * 2048 * 8192
    expected = 49152 * 2048 + 40 * (attention + mlp + 2 * 2048) + 2048
    assert lmzoo.create_model("granite.granite-2b", device="meta").num_params() == expected


def test_granite_config_names_field_and_rule() -> None:
    with pytest.raises(ConfigError, match=r"residual_scale=0\.0 must be above 0"):
        lmzoo.create_model("granite", **SIZES, residual_scale=0.0)
