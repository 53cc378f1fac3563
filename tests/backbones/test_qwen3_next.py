"""Qwen3-Next; tests/hf/test_load.py compares the logits of both kinds with transformers' classes."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.layers.gated_shared_experts import GatedSharedExperts
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import UnitOffsetRMSNorm
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference


def test_qwen3_next_decoding_and_gradients_equal_transformers() -> None:
    """Heads of the delta rule share keys; a text longer than the context."""
    theirs = reference("qwen3_5_text", **case_keys("qwen3_5_text"))
    architecture, config = ARCHITECTURES["qwen3_5_text"], Config(theirs.config.to_dict())
    weights = architecture.weights_for(config)
    settings = architecture.settings(config, frozenset(config))
    ours = ours_with_weights_of(theirs, "qwen3_next", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_qwen3_next_passes_its_options_to_the_layers() -> None:
    sizes = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "norm_eps": 0.5, "rotary_fraction": 0.5}
    delta = {"delta_heads": 6, "delta_key_heads": 3, "key_dim": 5, "value_dim": 7, "d_conv": 3}
    experts = {"feed_forward": "experts mlp", "d_expert": 9, "d_shared": 10, "n_experts": 5, "top_k": 3}
    options = {"pattern": "delta attention", "n_layers": 2, "normalize": False, "balance_loss": 0.3, "rope_theta": 50.0}
    model = lmzoo.create_model("qwen3_next", vocab_size=13, **sizes, **delta, **experts, **options)
    (first, chosen), (second, dense) = model.blocks
    mixer, attention = first.inner, second.inner
    assert (mixer.n_heads, mixer.n_key_heads, mixer.key_dim, mixer.value_dim) == (6, 3, 5, 7)
    assert (mixer.conv.reach, mixer.largest_beta, mixer.norm.eps) == (3, 1.0, 0.5)
    assert (attention.n_kv_heads, attention.head_dim, attention.q_norm.eps) == (2, 6, 0.5)
    assert (attention.rope.theta, attention.rope.fraction) == (50.0, 0.5)
    assert isinstance(chosen.inner, GatedSharedExperts)
    assert (chosen.inner.n_experts, chosen.inner.top_k, chosen.inner.d_ff) == (5, 3, 9)
    assert (chosen.inner.normalize, chosen.inner.balance_loss) == (False, 0.3)
    assert chosen.inner.shared.down.weight.shape == (32, 10)
    assert isinstance(dense.inner, MLP)
    assert isinstance(model.norm, UnitOffsetRMSNorm)


def test_qwen3_next_80b_a3b_has_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):  # the defaults are those of the published model
        theirs = Qwen3NextForCausalLM(Qwen3NextConfig())
    model = lmzoo.create_model("qwen3_next.80b-a3b", device="meta")
    assert model.num_params() == theirs.num_parameters() == 79_674_391_296
    tables = 2 * model.tokens.weight.numel()  # the published figure leaves out the embedding and the head
    assert 3.0 < (model.num_params(active=True) - tables) / 1e9 < 3.5


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "mamba"}, "pattern='mamba'"),
        ({"feed_forward": "none"}, "feed_forward='none'"),
        ({"head_dim": 5}, "head_dim=5 must be even"),
        ({"delta_heads": 4, "delta_key_heads": 3}, "delta_key_heads=3 must divide delta_heads=4"),
        ({"top_k": 9}, "top_k=9 must be at most n_experts=8"),
        ({"rotary_fraction": 1.5}, "rotary_fraction=1.5"),
        ({"head_dim": 6}, r"rotary_fraction=0\.25 of head_dim=6 must be at least 2 features"),
        ({"delta_heads": 0}, "delta_heads=0"),
    ],
)
def test_qwen3_next_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("qwen3_next", vocab_size=13, **settings)
