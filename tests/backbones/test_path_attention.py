"""PaTH compared with its equations around the attention of flash-linear-attention; its options, state and presets.

tests/layers/test_path_attention.py compares the mixer with a loop over its equations.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.inference import decoding_copy
from lmzoo.layers.path_attention import PathAttention
from tests.backbones.references import Weights, assert_equals_reference, mixer_model
from tests.ops import fla_naive

attention = fla_naive.load("ops/path_attn/naive.py").naive_path_attn


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer with separate projections, a convolution of torch, and gates added before the scaling."""
    H, G, K = config.n_heads, config.n_kv_heads, config.d_model // config.n_heads
    q, k, v = (
        (x @ w.T).unflatten(2, (heads, K))
        for w, heads in zip(weights["qkv.weight"].split([H * K, G * K, G * K]), (H, G, G), strict=True)
    )
    w = x @ (weights["w_up.weight"] @ weights["w_down.weight"]).T
    w = F.conv1d(F.pad(w.mT, (config.d_conv - 1, 0)), weights["w_conv.weight"][:, None], groups=G * K).mT
    w = F.silu(w).unflatten(2, (G, K))
    w = w * (w.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
    beta = 2 * (x @ weights["beta.weight"].T + weights["beta.bias"]).sigmoid()
    g = torch.zeros_like(q[..., 0])
    if config.forget_gate:
        g = F.logsigmoid(x @ weights["forget.weight"].T + weights["forget.bias"])
    y = attention(q, k, v, w, beta, g, scale=K**-0.5, chunk_size=16)
    return y.flatten(2) @ weights["out.weight"].T


@pytest.mark.parametrize(
    ("n_kv_heads", "forget_gate", "d_conv"), [(4, False, 3), (2, False, 2), (4, True, 3), (1, True, 4)]
)
def test_path_attention_logits_gradients_and_decoding_equal_the_reference(
    n_kv_heads: int, forget_gate: bool, d_conv: int
) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 4, "d_ff": 20, "context_length": 16, "w_rank": 5}
    assert_equals_reference(
        "path_attention",
        lambda weights, idx, config: mixer_model(weights, idx, config, mixer),
        T=40,
        n_kv_heads=n_kv_heads,
        forget_gate=forget_gate,
        d_conv=d_conv,
        norm_eps=1e-4,
        **sizes,
    )


def test_path_attention_passes_its_options_to_the_mixer() -> None:
    options = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "w_rank": 5, "d_conv": 2, "forget_gate": True}
    (mixer, _), *_ = lmzoo.create_model("path_attention", vocab_size=13, **options).blocks
    assert isinstance(mixer.inner, PathAttention)
    assert (mixer.inner.n_heads, mixer.inner.n_kv_heads, mixer.inner.w_conv.reach) == (4, 2, 2)
    assert mixer.inner.w_down.weight.shape == (5, 32)
    assert mixer.inner.forget is not None


@pytest.mark.parametrize("forget_gate", [False, True])
def test_path_attention_state_holds_keys_values_and_gates(forget_gate: bool) -> None:
    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    model = lmzoo.create_model("path_attention", vocab_size=13, **sizes, forget_gate=forget_gate)
    assert model.state_bytes(50) == 2 * 4 * (50 * (2 * 16 + 4 * forget_gate) + 2 * 16)
    assert model.traits.state_growth == "linear"


def test_path_attention_compiled_copies_decode_eagerly_because_keys_are_replaced() -> None:
    model = lmzoo.create_model("path_attention.tiny", vocab_size=13).eval()
    copies = [decoding_copy(model, "bfloat16", compiled=compiled) for compiled in (False, True)]
    prompt = torch.zeros(1, 3, dtype=torch.long)
    _, state = copies[1].decode(prompt, copies[1].init_state(1, 20))
    step = copies[1].compiled_step
    assert step is not None
    assert not step.can_take(prompt[:, :1], state["layers"])
    eager, compiled = (copy.generate(prompt, 6, temperature=0) for copy in copies)
    assert torch.equal(eager, compiled)


@pytest.mark.parametrize(("preset", "size", "error"), [("1m", 1e6, 0.05), ("fox-1m", 1e6, 0.05), ("10m", 1e7, 0.02)])
def test_path_attention_presets_have_the_size_of_their_names(preset: str, size: float, error: float) -> None:
    n = lmzoo.create_model(f"path_attention.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / size - 1) < error
