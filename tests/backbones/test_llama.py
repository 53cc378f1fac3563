"""Llama against transformers' LlamaForCausalLM and, with a window, MistralForCausalLM, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import lmzoo
from tests.backbones.against_transformers import TOLERANCE, copy_into, perturb, random_tokens

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


def ours_with(source: dict[str, Tensor], window: int | None) -> lmzoo.LanguageModel:
    settings = {"d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 48, "window": window}
    model = lmzoo.create_model("llama", vocab_size=61, context_length=16, **settings)
    weights = {
        "tokens.weight": source["model.embed_tokens.weight"],
        "norm.weight": source["model.norm.weight"],
        "head.weight": source["lm_head.weight"],
    }
    for i in range(3):
        theirs, name = f"model.layers.{i}", f"blocks.{i}"
        attention = f"{theirs}.self_attn"
        weights[f"{name}.0.before.weight"] = source[f"{theirs}.input_layernorm.weight"]
        weights[f"{name}.1.before.weight"] = source[f"{theirs}.post_attention_layernorm.weight"]
        weights[f"{name}.0.inner.qkv.weight"] = torch.cat([source[f"{attention}.{x}_proj.weight"] for x in "qkv"])
        weights[f"{name}.0.inner.out.weight"] = source[f"{attention}.o_proj.weight"]
        weights[f"{name}.1.inner.up.weight"] = torch.cat(
            [source[f"{theirs}.mlp.{x}_proj.weight"] for x in ("gate", "up")]
        )
        weights[f"{name}.1.inner.down.weight"] = source[f"{theirs}.mlp.down_proj.weight"]
    copy_into(model, weights)
    return model.eval()


@pytest.mark.parametrize("window", [None, 7])
def test_logits_equal_transformers(window: int | None) -> None:
    """Several KV heads, a text longer than window and training context, forward and step by step."""
    if window is None:
        theirs = perturb(LlamaForCausalLM(LlamaConfig(**SIZES)))
    else:
        theirs = perturb(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)))
    ours = ours_with(theirs.state_dict(), window)
    idx = random_tokens(61, 3, 40)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)

    state = ours.init_state(3, 40)
    logits, state = ours.decode(idx[:, :17], state)
    torch.testing.assert_close(logits, expected[:, 16], atol=TOLERANCE, rtol=0)
    for t in range(17, 40):
        logits, state = ours.decode(idx[:, t : t + 1], state)
        torch.testing.assert_close(logits, expected[:, t], atol=TOLERANCE, rtol=0)


def test_a_window_bounds_the_state() -> None:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4}
    windowed, full = (lmzoo.create_model("llama", window=window, **sizes) for window in (8, None))
    assert windowed.state_bytes(1000) == windowed.state_bytes(16)
    assert full.state_bytes(1000) == 1000 * full.state_bytes(1)
