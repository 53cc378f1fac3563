"""DeepSeek compared with transformers' DeepseekV2ForCausalLM and DeepseekV3ForCausalLM, same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

import lmzoo
from lmzoo import losses
from lmzoo.errors import ConfigError
from lmzoo.hf import deepseek, latent
from lmzoo.hf.weights import Weights
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

THEIRS = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "rope_theta": 100.0,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}
OURS = {
    "vocab_size": 61,
    "context_length": 16,
    "d_model": 32,
    "d_ff": 48,
    "d_expert": 12,
    "n_layers": 3,
    "n_heads": 4,
    "n_experts": 8,
    "n_shared": 2,
    "n_dense": 1,
    "kv_rank": 12,
    "nope_dim": 10,
    "rope_dim": 6,
    "v_dim": 8,
    "rope_theta": 100.0,
}
V2 = {"sigmoid": False, "normalize": False, "balance_bias": False}
GROUPS = {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 4}
OUR_GROUPS = {"n_groups": 4, "top_groups": 2, "top_k": 4}


def v2_lite() -> tuple[Any, Weights, dict[str, Any]]:
    theirs = DeepseekV2ForCausalLM(DeepseekV2Config(**THEIRS, q_lora_rank=None, num_experts_per_tok=3))
    return theirs, deepseek.V2_LITE, {**V2, "top_k": 3}


def v2() -> tuple[Any, Weights, dict[str, Any]]:
    options = {"q_lora_rank": 10, "topk_method": "group_limited_greedy", "routed_scaling_factor": 3.0}
    theirs = DeepseekV2ForCausalLM(DeepseekV2Config(**THEIRS, **GROUPS, **options))
    return theirs, deepseek.V2, {**V2, **OUR_GROUPS, "q_rank": 10, "routed_scale": 3.0}


def v3(interleave: bool) -> tuple[Any, Weights, dict[str, Any]]:
    options = {"q_lora_rank": 10, "routed_scaling_factor": 2.5, "rope_interleave": interleave}
    theirs = DeepseekV3ForCausalLM(DeepseekV3Config(**THEIRS, **GROUPS, **options))
    for layer in theirs.model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias.copy_(torch.linspace(-0.3, 0.3, 8).roll(3))
    weights = deepseek.V3 if interleave else latent.in_halves(deepseek.V3)
    return theirs, weights, {**OUR_GROUPS, "q_rank": 10, "routed_scale": 2.5}


FORMS = {"v2-lite": v2_lite, "v2": v2, "v3": lambda: v3(True), "v3, halves": lambda: v3(False)}


@pytest.mark.parametrize("form", FORMS)
def test_deepseek_logits_and_gradients_equal_transformers(form: str) -> None:
    """Covers both kinds of affinities, groups, biases, both rotary layouts; forward, in pieces, beyond the context."""
    theirs, weights, options = FORMS[form]()
    theirs = perturb(theirs)
    ours = ours_with_weights_of(theirs, "deepseek", weights, **OURS, **options)
    idx = random_tokens(61, 3, 30)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3] + [1] * 15)
    trained = {name: source for name, source in weights.items() if not name.endswith("choice_bias")}
    assert_gradients_equal(ours, theirs, trained, idx)


def test_deepseek_absorbed_decoding_equals_forward_in_float64() -> None:
    ours = perturb(lmzoo.create_model("deepseek", **OURS, q_rank=10).double())
    attention = ours.blocks[0][0].inner
    assert attention.absorbs(1)
    assert not attention.absorbs(40), "so the first piece is expanded, and the others are absorbed"
    idx = random_tokens(61, 2, 60)
    expected, state, start = ours(idx).logits, ours.init_state(2, 60), 0
    for length in (40, 1, 1, 3, 15):
        logits_BTV, state = ours.decode_all(idx[:, start : start + length], state)
        torch.testing.assert_close(logits_BTV, expected[:, start : start + length], atol=1e-9, rtol=0)
        start += length
    assert start == 60


def test_deepseek_state_is_the_compressed_cache() -> None:
    """Compares with the numbers of DeepSeek-V2's paper: (512 + 64) per token and layer, whatever the heads."""
    few, many = (lmzoo.create_model("deepseek", **{**OURS, "n_heads": heads}) for heads in (2, 8))
    assert few.state_bytes(50) == many.state_bytes(50) == 3 * 4 * 50 * (12 + 6)
    assert lmzoo.create_model("deepseek.v2-lite", n_layers=2, device="meta").state_bytes(10) == 2 * 4 * 10 * 576


@pytest.mark.parametrize(
    ("preset", "billions", "active"), [("v2-lite", 15.7, 2.4), ("v2", 235.7, 21.0), ("v3", 671.0, 37.0)]
)
def test_deepseek_presets_have_the_published_numbers_of_parameters(preset: str, billions: float, active: float) -> None:
    model = lmzoo.create_model(f"deepseek.{preset}", device="meta")
    assert round(model.num_params() / 1e9, 1) == billions
    # The published number leaves out the embedding, and 21 B and 37 B are rounded down.
    assert 0 <= model.num_params(active=True) / 1e9 - active < 1.0


def test_deepseek_trains_every_parameter() -> None:
    idx = random_tokens(61, 4, 17)
    model = lmzoo.create_model("deepseek", **OURS, generator=torch.Generator().manual_seed(0)).train()
    with losses.collect_auxiliary(True) as named:
        model.features(idx)
    assert named.keys() == {"balance", "balance_bias"}
    model(idx[:, :-1], idx[:, 1:]).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_dim": 5}, "rope_dim=5 must be even to be rotated"),
        ({"n_groups": 3}, "n_groups=3 must divide n_experts=8"),
        ({"top_groups": 2}, "top_groups=2 must be at most n_groups=1"),
        ({"n_groups": 4, "top_k": 3}, "top_k=3 must be at most the 2 experts of top_groups=1 of n_groups=4 groups"),
        ({"n_experts": 1}, "must be at most the 1 experts of .* of n_experts=1"),
        ({"n_heads": 0}, "^n_heads=0 must be a positive integer"),
        ({"n_dense": -1}, "n_dense=-1 must be in"),
    ],
)
def test_deepseek_config_refuses_wrong_sizes(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lmzoo.create_model("deepseek", **{**OURS, **settings})


def test_deepseek_pattern_gives_each_block_its_mixer() -> None:
    """tests/hf compares whole models with transformers' KimiLinearForCausalLM."""
    sizes = {"d_model": 32, "n_layers": 3, "kda_heads": 3, "kda_dim": 5, "d_conv": 3, "norm_eps": 0.5}
    model = lmzoo.create_model("deepseek", vocab_size=13, pattern="kda nope rope", **sizes)
    delta, nope, rope = (block[0].inner for block in model.blocks)
    assert (delta.n_heads, delta.key_dim, delta.conv.reach, delta.norm.eps) == (3, 5, 3, 0.5)
    assert (nope.rope.fraction, rope.rope.fraction) == (0.0, 1.0)
    for settings, error in (({"pattern": "full"}, "pattern='full'"), ({"kda_heads": 0}, "kda_heads=0")):
        with pytest.raises(ConfigError, match=error):
            lmzoo.create_model("deepseek", vocab_size=13, **settings)
