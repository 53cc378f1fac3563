"""Gemma 3 and 2 compared with transformers' Gemma3ForCausalLM and Gemma2ForCausalLM with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.gemma3 import WEIGHTS
from lmzoo.hf.weights import convert
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

THEIRS: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 7,
    "query_pre_attn_scalar": 24,
    "pad_token_id": None,  # the embedding of a padding token gets no gradient
    "attn_implementation": "eager",  # the fused kernel of transformers ignores the cap
}
OURS: dict[str, Any] = {
    "vocab_size": 61,
    "context_length": 16,
    "d_model": 32,
    "n_layers": 4,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 16,
    "d_ff": 48,
    "window": 7,
    "query_scalar": 24.0,
}
GEMMA2_OPTIONS = {
    "pattern": "local global",
    "rope_theta": 10000.0,
    "qk_norm": False,
    "attention_cap": 2.0,
    "logit_cap": 3.0,
}


def make_pair(version: int) -> tuple[lmzoo.LanguageModel, torch.nn.Module]:
    """Returns Gemma 3 or 2 here and in transformers, with the same weights."""
    if version == 2:
        theirs = Gemma2ForCausalLM(Gemma2Config(**THEIRS, attn_logit_softcapping=2.0, final_logit_softcapping=3.0))
        return ours_with_weights_of(perturb(theirs), "gemma3", WEIGHTS, **OURS, **GEMMA2_OPTIONS), theirs
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    theirs = Gemma3ForCausalLM(Gemma3TextConfig(**THEIRS, layer_types=kinds, rope_parameters=ropes))
    options = {"pattern": "local*3 global", "rope_scaling": "linear factor=8"}
    return ours_with_weights_of(perturb(theirs), "gemma3", WEIGHTS, **OURS, **options), theirs


@pytest.mark.parametrize("version", [2, 3])
def test_gemma3_logits_and_gradients_equal_transformers(version: int) -> None:
    """Covers both kinds of layers, several KV heads, and a sequence longer than window and context."""
    ours, theirs = make_pair(version)
    idx = random_tokens(61, 3, 40)
    expected = theirs(idx, labels=idx)
    assert expected.logits.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected.logits, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected.logits.detach(), [17] + [1] * 23)
    expected.loss.backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    theirs_by_name = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in convert(theirs_by_name, WEIGHTS, to_dict(ours.config)).items():
        actual = ours.get_parameter(name).grad
        torch.testing.assert_close(actual, gradient, atol=TOLERANCE * gradient.abs().max().item(), rtol=0)


def test_gemma3_state_of_local_layers_is_bounded_by_the_window() -> None:
    sizes = {**OURS, "n_layers": 6, "window": 8}
    model = lmzoo.create_model("gemma3", **sizes)
    growth = model.state_bytes(1000) - model.state_bytes(100)
    assert growth == 900 * 2 * 2 * 16 * 4, "one of six layers is global"


def test_gemma3_1b_has_the_published_number_of_parameters() -> None:
    model = lmzoo.create_model("gemma3.1b", device="meta")
    with torch.device("meta"):
        theirs = Gemma3ForCausalLM(
            Gemma3TextConfig(
                vocab_size=262_144,
                hidden_size=1152,
                intermediate_size=6912,
                num_hidden_layers=26,
                num_attention_heads=4,
                num_key_value_heads=1,
                head_dim=256,
            )
        )
    assert model.num_params() == theirs.num_parameters()


def test_gemma3_config_names_field_and_rule() -> None:
    with pytest.raises(ConfigError, match=r"head_dim=7 must be even to be rotated"):
        lmzoo.create_model("gemma3", vocab_size=13, head_dim=7)
    with pytest.raises(ConfigError, match=r"attention_cap=0\.0 must be above 0"):
        lmzoo.create_model("gemma3", vocab_size=13, attention_cap=0.0)
    with pytest.raises(ConfigError, match=r"'all' must be one of local, window, global"):
        lmzoo.create_model("gemma3", vocab_size=13, pattern="all")
