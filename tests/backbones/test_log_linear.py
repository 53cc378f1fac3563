"""Log-linear Mamba-2 compared with its equations around the attention of flash-linear-attention, and with Mamba-2.

tests/layers/test_log_linear.py compares the mixer with a sum over all pairs of tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.inference import decoding_copy
from tests.backbones.references import Weights, assert_equals_reference, rms
from tests.ops import fla_naive

attention = fla_naive.load("ops/log_linear_attn/naive.py").naive_log_linear_attn


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer with separate projections and a convolution of torch; groups are expanded by the reference."""
    E, P, G, N, L = config.expand * config.d_model, config.head_dim, config.n_groups, config.d_state, config.n_levels
    H = E // P
    z, xBC, dt = (x @ w.T for w in weights["in_proj.weight"].split([E, E + 2 * G * N, H]))
    padded = F.pad(xBC.mT, (config.d_conv - 1, 0))
    filters = weights["conv.weight"][:, None]
    xBC = F.silu(F.conv1d(padded, filters, weights["conv.bias"], groups=len(filters))).mT
    values, k, q = xBC.split([E, G * N, G * N], dim=-1)
    values, k, q = values.unflatten(2, (H, P)), k.unflatten(2, (G, N)), q.unflatten(2, (G, N))
    step = F.softplus(dt + weights["dt_bias"])
    level_weights = F.softplus((x @ weights["levels.weight"].T).unflatten(2, (H, L)) * weights["level_scale"])
    y = attention(q, k, step[..., None] * values, -step * weights["A_log"].exp(), level_weights)
    y = (y + weights["D"][:, None] * values).flatten(2) * F.silu(z)
    normed = rms(y.unflatten(2, (G, -1)), torch.ones(()), config.norm_eps).flatten(2) * weights["norm_weight"]
    return normed @ weights["out_proj.weight"].T


def model(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits around the mixers."""
    x = weights["tokens.weight"][idx]
    for i in range(config.n_layers):
        inner = {k.removeprefix(f"blocks.{i}.inner."): w for k, w in weights.items()}
        x = x + mixer(inner, rms(x, weights[f"blocks.{i}.before.weight"], config.norm_eps), config)
    return rms(x, weights["norm.weight"], config.norm_eps) @ weights["head.weight"].T


@pytest.mark.parametrize("n_groups", [1, 3])
def test_log_linear_logits_gradients_and_decoding_equal_the_reference(n_groups: int) -> None:
    """40 tokens have 7 levels: all weights are used, and the last chunk is partial."""
    sizes = {"d_model": 24, "n_layers": 2, "d_state": 5, "head_dim": 8, "d_conv": 3, "context_length": 16}
    options = {"n_groups": n_groups, "n_levels": 7, "norm_eps": 1e-4, "tie_embeddings": False}
    assert_equals_reference("log_linear", model, T=40, **sizes, **options)


def test_log_linear_state_grows_with_the_logarithm() -> None:
    sizes = {"d_model": 32, "n_layers": 2, "d_state": 8, "n_groups": 2}
    made = lmzoo.create_model("log_linear", vocab_size=13, **sizes)
    for T, memories in ((1, 1), (15, 4), (16, 5), (1000, 10)):
        assert made.state_bytes(T) == 2 * 4 * (3 * (64 + 2 * 2 * 8) + memories * 64 * 8)
    assert made.traits.state_growth == "logarithmic"


def test_log_linear_compiled_copies_decode_eagerly_because_memories_are_replaced() -> None:
    made = lmzoo.create_model("log_linear.tiny", vocab_size=13).eval()
    copies = [decoding_copy(made, "bfloat16", compiled=compiled) for compiled in (False, True)]
    prompt = torch.zeros(1, 3, dtype=torch.long)
    _, state = copies[1].decode(prompt, copies[1].init_state(1, 20))
    step = copies[1].compiled_step
    assert step is not None
    assert not step.can_take(prompt[:, :1], state["layers"])
    eager, compiled = (copy.generate(prompt, 6, temperature=0) for copy in copies)
    assert torch.equal(eager, compiled)


def test_log_linear_passes_its_options_to_the_mixer() -> None:
    options = {"d_model": 32, "n_levels": 5, "d_state": 3, "head_dim": 16, "n_groups": 2, "d_conv": 2, "expand": 3}
    block, *_ = lmzoo.create_model("log_linear", vocab_size=13, **options, norm_eps=1e-3).blocks
    assert block.inner.level_scale.shape == (6, 5)
    assert (block.inner.d_state, block.inner.n_groups, block.inner.conv.reach, block.inner.norm_eps) == (3, 2, 2, 1e-3)


def test_log_linear_config_refuses_heads_and_groups_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"head_dim=24 must divide expand \* d_model = 64"):
        lmzoo.create_model("log_linear", vocab_size=13, d_model=32, head_dim=24)
    with pytest.raises(ConfigError, match="n_groups=3 must divide the number of heads, 2"):
        lmzoo.create_model("log_linear", vocab_size=13, d_model=32, n_groups=3)


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_log_linear_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"log_linear.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within
