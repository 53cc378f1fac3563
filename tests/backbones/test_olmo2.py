"""OLMo 2 compared with transformers' Olmo2ForCausalLM with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import Olmo2Config, Olmo2ForCausalLM

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.olmo2 import WEIGHTS
from lmzoo.hf.weights import convert
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


def test_olmo2_logits_and_gradients_equal_transformers() -> None:
    """Covers several KV heads and a sequence longer than the context; forward and step by step."""
    config = Olmo2Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-3,
        pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        attn_implementation="eager",
    )
    theirs = perturb(Olmo2ForCausalLM(config))
    sizes = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}
    ours = ours_with_weights_of(theirs, "olmo2", WEIGHTS, **sizes, d_ff=48, rope_theta=1000.0, norm_eps=1e-3)
    idx = random_tokens(61, 3, 40)
    expected = theirs(idx, labels=idx)
    assert expected.logits.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected.logits, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected.logits.detach(), [17] + [1] * 23)
    expected.loss.backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    gradients = convert({name: p.grad for name, p in theirs.named_parameters()}, WEIGHTS, to_dict(ours.config))
    for name, gradient in gradients.items():
        actual = ours.get_parameter(name).grad
        torch.testing.assert_close(actual, gradient, atol=TOLERANCE * gradient.abs().max().item(), rtol=0)


def test_olmo2_1b_has_the_published_number_of_parameters() -> None:
    assert lmzoo.create_model("olmo2.1b", device="meta").num_params() == 1_484_916_736


def test_olmo2_pattern_gives_each_layer_its_mixer_and_norms() -> None:
    """tests/hf compares whole models with transformers' OlmoHybridForCausalLM."""
    sizes = {"d_model": 32, "n_layers": 3, "n_heads": 4, "delta_heads": 6, "delta_key_heads": 3, "d_conv": 3}
    model = lmzoo.create_model("olmo2", vocab_size=13, pattern="delta nope rope", **sizes, norm_eps=0.5)
    (delta, _), (nope, _), (rope, _) = model.blocks
    mixer = delta.inner
    assert (mixer.n_heads, mixer.n_key_heads, mixer.key_dim, mixer.value_dim) == (6, 3, 8, 16)
    assert (mixer.conv.reach, mixer.largest_beta, mixer.norm.eps) == (3, 2.0, 1e-5)
    assert (delta.after, nope.before, rope.before) == (None, None, None)
    assert (nope.inner.rope, rope.inner.rope is None) == (None, False)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "full"}, "pattern='full'"),
        ({"delta_heads": 4, "delta_key_heads": 3}, "delta_key_heads=3 must divide delta_heads=4"),
        ({"delta_key_heads": 0}, "delta_key_heads=0"),
        ({"key_dim": 0}, "key_dim=0"),
    ],
)
def test_olmo2_config_refuses_what_does_not_fit(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("olmo2", vocab_size=13, **settings)
