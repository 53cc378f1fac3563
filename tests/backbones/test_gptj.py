"""GPT-J and its relatives; tests/hf/test_load.py compares their logits with transformers' classes."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.gptj import PHI
from lmzoo.layers.branches import Branches
from lmzoo.layers.head_norm import HeadLayerNorm
from lmzoo.layers.scale import Scale
from lmzoo.layers.stack import Residual, Stack
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}


def test_gptj_decoding_and_gradients_equal_transformers() -> None:
    """Phi has every bias. Several KV heads, and a text longer than the context."""
    theirs = reference("phi", **case_keys("phi"))
    weights = {name: source for name, source in PHI.weights.items() if not name.startswith("head.inner")}
    settings = {**SIZES, "d_ff": 40, "norm_eps": 0.02, "rope_theta": 100.0, "rotary_dim": 2, "attention_bias": "all"}
    ours = ours_with_weights_of(theirs, "gptj", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_gptj_passes_its_options_to_the_layers() -> None:
    options = {"gated": True, "qk_norm": True, "head_bias": False, "logit_scale": 0.5}
    side_by_side = lmzoo.create_model("gptj", **SIZES, rotary_dim=6, **options)
    in_sequence = lmzoo.create_model("gptj", **SIZES, parallel=False, attention_bias="qkv", mlp_bias=False)
    first, second = side_by_side.blocks[0], in_sequence.blocks[0]
    assert isinstance(first, Residual)
    assert isinstance(first.inner, Branches)
    attention, mlp = first.inner
    assert isinstance(attention.q_norm, HeadLayerNorm)
    assert mlp.gated
    assert attention.rope.fraction == 6 / 8
    assert isinstance(side_by_side.head, Scale)
    assert isinstance(second, Stack)
    assert (second[0].inner.qkv.bias is None, second[0].inner.out.bias is None) == (False, True)
    assert second[1].inner.up.bias is None
    assert in_sequence.head.bias is not None


@pytest.mark.parametrize(("preset", "params"), [("gptj-6b", 6_050_882_784), ("phi-2", 2_779_683_840)])
def test_gptj_presets_have_the_published_number_of_parameters(preset: str, params: int) -> None:
    assert lmzoo.create_model(f"gptj.{preset}", device="meta").num_params() == params


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_gptj_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"gptj.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within


def test_gptj_config_names_field_and_rule() -> None:
    for rotary_dim in (3, 0, 10):
        with pytest.raises(ConfigError, match=f"rotary_dim={rotary_dim} must be even and from 2 to head_dim=8"):
            lmzoo.create_model("gptj", **SIZES, rotary_dim=rotary_dim)
    with pytest.raises(ConfigError, match="head_bias=True must be False with tie_embeddings=True"):
        lmzoo.create_model("gptj", **SIZES, tie_embeddings=True)
