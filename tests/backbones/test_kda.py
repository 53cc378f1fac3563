"""KDA compared with transformers' Kimi Linear, all of whose layers are made linear and dense.

tests/layers/test_kda.py compares the mixer with a loop over its equations.
"""

from __future__ import annotations

import pytest
from transformers import KimiLinearConfig, KimiLinearForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.kda import WEIGHTS
from lmzoo.layers.kda import KDA
from tests.backbones.references import assert_equals_transformers


def test_kda_logits_gradients_and_decoding_equal_transformers() -> None:
    config = KimiLinearConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        layer_types=["linear_attention"] * 2,
        mlp_layer_types=["dense"] * 2,
        linear_num_heads=3,
        linear_head_dim=6,
        linear_conv_kernel_dim=3,
        rms_norm_eps=1e-4,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "head_dim": 6, "d_conv": 3, "d_ff": 20, "context_length": 16}
    assert_equals_transformers(lambda: KimiLinearForCausalLM(config), "kda", WEIGHTS, T=40, norm_eps=1e-4, **sizes)


def test_kda_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "head_dim": 6, "d_conv": 3, "norm_eps": 1e-3, "negative_eigenvalues": True}
    (mixer, _), *_ = lmzoo.create_model("kda", vocab_size=13, **sizes).blocks
    assert isinstance(mixer.inner, KDA)
    assert (mixer.inner.n_heads, mixer.inner.key_dim, mixer.inner.value_dim) == (2, 6, 6)
    assert (mixer.inner.conv.reach, mixer.inner.norm.eps) == (3, 1e-3)
    assert mixer.inner.largest_beta == 2.0


def test_kda_config_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"n_heads=4 must divide d_model=30, or head_dim must be given"):
        lmzoo.create_model("kda", vocab_size=13, d_model=30)


def test_kda_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("kda", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (3 * 3 * 32 + 4 * 8 * 8)
