"""Gated DeltaNet compared with transformers' OLMo Hybrid, all of whose layers are made linear.

tests/layers/test_gated_delta.py compares the mixer with a loop over its equations and with Qwen3-Next's.
"""

from __future__ import annotations

import pytest
from transformers import OlmoHybridConfig, OlmoHybridForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.gated_deltanet import WEIGHTS
from lmzoo.layers.gated_delta import GatedDelta
from tests.backbones.references import assert_equals_transformers


@pytest.mark.parametrize("negative_eigenvalues", [False, True])
def test_gated_deltanet_logits_gradients_and_decoding_equal_transformers(negative_eigenvalues: bool) -> None:
    config = OlmoHybridConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=3,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=6,
        linear_value_head_dim=10,
        linear_conv_kernel_dim=3,
        linear_allow_neg_eigval=negative_eigenvalues,
        linear_a_log_min=0.5,
        rms_norm_eps=1e-5,
        pad_token_id=None,
        eos_token_id=None,
    )
    config.layer_types = ["linear_attention"] * 2  # the constructor insists on one layer of attention
    assert_equals_transformers(
        lambda: OlmoHybridForCausalLM(config),
        "gated_deltanet",
        WEIGHTS,
        T=40,
        d_model=24,
        n_layers=2,
        n_heads=3,
        key_dim=6,
        value_dim=10,
        d_conv=3,
        d_ff=20,
        negative_eigenvalues=negative_eigenvalues,
        context_length=16,
    )


def test_gated_deltanet_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "d_conv": 3, "negative_eigenvalues": True, "norm_eps": 1e-3}
    (mixer, _), *_ = lmzoo.create_model("gated_deltanet", vocab_size=13, **sizes).blocks
    assert isinstance(mixer.inner, GatedDelta)
    assert (mixer.inner.n_heads, mixer.inner.key_dim, mixer.inner.value_dim) == (2, 12, 24)
    assert (mixer.inner.conv.reach, mixer.inner.largest_beta, mixer.inner.norm.eps) == (3, 2.0, 1e-3)


def test_gated_deltanet_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("gated_deltanet", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (3 * 4 * (6 + 6 + 12) + 4 * 6 * 12)


def test_gated_deltanet_config_names_what_leaves_no_width_for_the_keys() -> None:
    with pytest.raises(ConfigError, match="n_heads=4 is too many for d_model=3: key_dim would be 0"):
        lmzoo.create_model("gated_deltanet", vocab_size=5, d_model=3, n_heads=4, device="meta")
