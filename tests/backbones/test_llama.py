"""Llama compared with transformers' LlamaForCausalLM and, with a window, MistralForCausalLM, same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import lmzoo
from lmzoo.hf.llama import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

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


@pytest.mark.parametrize("window", [None, 7])
def test_llama_logits_equal_transformers(window: int | None) -> None:
    """Covers several KV heads and a sequence longer than window and context; forward and step by step."""
    if window is None:
        theirs = perturb(LlamaForCausalLM(LlamaConfig(**SIZES)))
    else:
        theirs = perturb(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)))
    settings = {"d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 48, "window": window}
    ours = ours_with_weights_of(theirs, "llama", WEIGHTS, vocab_size=61, context_length=16, **settings)
    idx = random_tokens(61, 3, 40)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [17] + [1] * 23)


def test_llama_state_is_bounded_by_the_window() -> None:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4}
    windowed, full = (lmzoo.create_model("llama", window=window, **sizes) for window in (8, None))
    assert windowed.state_bytes(1000) == windowed.state_bytes(16)
    assert full.state_bytes(1000) == 1000 * full.state_bytes(1)
