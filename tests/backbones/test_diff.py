"""The Diff Transformer compared with transformers' DiffLlamaForCausalLM with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.diff import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 2), (2, 2), (4, 1)])
def test_diff_logits_and_gradients_equal_transformers(n_heads: int, n_kv_heads: int) -> None:
    """Covers several heads of keys, and lambdas of three depths; forward and step by step, beyond the context."""
    config = DiffLlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2 * n_heads,
        num_key_value_heads=2 * n_kv_heads,
        rms_norm_eps=1e-3,
        attn_implementation="eager",
    )
    theirs = perturb(DiffLlamaForCausalLM(config))
    settings = {"d_model": 32, "n_layers": 3, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "d_ff": 48}
    shape = {"vocab_size": 61, "context_length": 16, "norm_eps": 1e-3}
    ours = ours_with_weights_of(theirs, "diff", WEIGHTS, **shape, **settings)
    idx = random_tokens(61, 3, 30)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3] + [1] * 15)
    assert_gradients_equal(ours, theirs, WEIGHTS, idx)


def test_diff_lambda_starts_by_depth() -> None:
    """The values of the paper for layers 1 and 2, and its limit."""
    model = lmzoo.create_model("diff", vocab_size=13, d_model=16, n_layers=40, norm_eps=1e-3)
    first, second, *_, last = (block[0].inner for block in model.blocks)
    assert first.lambda_init == pytest.approx(0.2)
    assert second.lambda_init == pytest.approx(0.35551, abs=1e-5)
    assert last.lambda_init == pytest.approx(0.8, abs=1e-4)
    assert first.norm_eps == 1e-3


def test_diff_state_is_as_large_as_that_of_attention_with_the_same_width() -> None:
    sizes = {"vocab_size": 13, "d_model": 32, "n_layers": 2}
    diff = lmzoo.create_model("diff", **sizes, n_heads=2, n_kv_heads=1)
    assert diff.state_bytes(50) == lmzoo.create_model("llama", **sizes, n_heads=4, n_kv_heads=2).state_bytes(50)


def test_diff_config_refuses_maps_that_cannot_be_rotated() -> None:
    with pytest.raises(ConfigError, match="n_heads=2 gives heads of width 6, which must be a multiple of 4"):
        lmzoo.create_model("diff", vocab_size=13, d_model=12, n_heads=2)
