"""FoX: with open gates and rotary positions it is Llama as transformers has it; its options, state and presets.

tests/layers/test_forgetting_attention.py compares the mixers with a loop over their equations, and
tests/ops/test_forgetting_attention.py the gates with flash-linear-attention.
"""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.llama import WEIGHTS
from lmzoo.hf.weights import convert
from lmzoo.layers.forgetting_attention import ForgettingAttention, ForgettingAttentionPro
from tests.backbones.against_transformers import TOLERANCE, assert_decoding_equals, perturb, random_tokens


def test_fox_with_open_gates_and_rope_equals_llama_of_transformers() -> None:
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = perturb(LlamaForCausalLM(LlamaConfig(**sizes, **heads, rms_norm_eps=1e-5)))
    settings = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 48, "rope_theta": 10000.0}
    ours = lmzoo.create_model("fox", vocab_size=61, context_length=16, **settings).eval()
    kept = ours.load_state_dict(convert(theirs.state_dict(), WEIGHTS, to_dict(ours.config)), strict=False)
    assert not kept.unexpected_keys
    assert all(".forget." in name for name in kept.missing_keys)
    with torch.no_grad():
        for mixer, _ in ours.blocks:
            mixer.inner.forget.bias.fill_(100.0)
    idx = random_tokens(61, 3, 30)
    expected = theirs(idx).logits
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected.detach(), [11, 1, 3] + [1] * 15)
    expected.square().mean().backward()
    ours(idx).logits.square().mean().backward()
    wanted = convert({name: p.grad for name, p in theirs.named_parameters()}, WEIGHTS, to_dict(ours.config))
    for name, gradient in wanted.items():
        got = ours.get_parameter(name).grad
        torch.testing.assert_close(got, gradient, atol=TOLERANCE * gradient.abs().max().item(), rtol=0)


def test_fox_passes_its_options_to_the_mixer() -> None:
    sizes = {"vocab_size": 13, "d_model": 32, "n_layers": 1, "n_heads": 4}
    plain = lmzoo.create_model("fox", **sizes, n_kv_heads=2, rope_theta=50.0).blocks[0][0].inner
    assert type(plain) is ForgettingAttention
    assert (plain.n_kv_heads, plain.rope.theta) == (2, 50.0)
    default = lmzoo.create_model("fox", **sizes, pro=True).blocks[0][0].inner
    assert isinstance(default, ForgettingAttentionPro)
    assert (default.n_kv_heads, default.rope) == (4, None)
    with pytest.raises(ConfigError, match=r"rope_theta=10000\.0 must be None with pro=True"):
        lmzoo.create_model("fox", **sizes, pro=True, rope_theta=1e4)


@pytest.mark.parametrize("pro", [False, True])
def test_fox_state_holds_keys_values_and_gates(pro: bool) -> None:
    model = lmzoo.create_model("fox", vocab_size=13, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, pro=pro)
    tail = 2 * 16 if pro else 0
    assert model.state_bytes(50) == 2 * 4 * (50 * (2 * 16 + 4) + tail)
    assert model.traits.state_growth == "linear"


@pytest.mark.parametrize(("preset", "size", "error"), [("1m", 1e6, 0.05), ("pro-1m", 1e6, 0.05), ("10m", 1e7, 0.02)])
def test_fox_presets_have_the_size_of_their_names(preset: str, size: float, error: float) -> None:
    assert abs(lmzoo.create_model(f"fox.{preset}", vocab_size=256, device="meta").num_params() / size - 1) < error
