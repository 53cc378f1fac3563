"""Log-linear Mamba-2's mixer compared with the sum over all pairs of tokens, and decoding in pieces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.log_linear import LogLinearMamba2
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.ops.log_linear_attention import CHUNK_LENGTH
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def by_equations(layer: LogLinearMamba2, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one pair of tokens and one head at a time."""
    (B, T, _), P, N, H, G = x_BTD.shape, layer.head_dim, layer.d_state, layer.n_heads, layer.n_groups
    E, W, L = H * P, layer.conv.reach, layer.level_scale.shape[1]
    y_BTE = torch.zeros(B, T, E, dtype=x_BTD.dtype)
    for b in range(B):
        z, xBC, dt = (x_BTD[b] @ layer.in_proj.weight.T).split([E, E + 2 * G * N, H], dim=-1)
        padded = F.pad(xBC, (0, 0, W - 1, 0))
        xBC = F.silu(
            torch.stack([(padded[t : t + W] * layer.conv.weight.T).sum(0) for t in range(T)]) + layer.conv.bias
        )
        x, B_, C_ = xBC.split([E, G * N, G * N], dim=-1)
        step = torch.log(1 + torch.exp(dt + layer.dt_bias))
        decay = torch.exp(-step * torch.exp(layer.A_log))
        levels = (x_BTD[b] @ layer.levels.weight.T).view(T, H, L) * layer.level_scale
        weight = torch.log(1 + torch.exp(levels))
        for h in range(H):
            group, head = slice(h // (H // G) * N, (h // (H // G) + 1) * N), slice(h * P, (h + 1) * P)
            for t in range(T):
                y = layer.D[h] * x[t, head]
                for s in range(t + 1):
                    level = min((t ^ s).bit_length(), L - 1)
                    score = weight[t, h, level] * decay[s + 1 : t + 1, h].prod() * (C_[t, group] @ B_[s, group])
                    y = y + score * step[s, h] * x[s, head]
                y_BTE[b, t, head] = y * F.silu(z[t, head])
    grouped = y_BTE.unflatten(-1, (G, -1))
    normed = grouped / (grouped.square().mean(-1, keepdim=True) + layer.norm_eps).sqrt()
    return normed.flatten(2) * layer.norm_weight @ layer.out_proj.weight.T


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("n_levels", [2, 5])
def test_log_linear_equals_its_equations(n_groups: int, n_levels: int) -> None:
    sizes = {"d_state": 3, "head_dim": 4, "d_conv": 3, "n_groups": n_groups, "n_levels": n_levels}
    layer, x = perturbed(LogLinearMamba2(8, **sizes)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("lengths", [(40, 1, 1, 20), (1,) * 5 + (57,), (62,)])
def test_log_linear_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    assert sum(lengths) > CHUNK_LENGTH
    layer, x = perturbed(LogLinearMamba2(8, d_state=3, head_dim=4)), random(2, 62, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_log_linear_with_equal_weights_is_mamba2() -> None:
    """With scales of zero all weights are softplus(0) = log 2; the queries of Mamba-2 are multiplied by it."""

    class Scaled(Mamba2):
        def scan(self, q_BTHN: Tensor, *rest: Any) -> tuple[Tensor, Any]:
            return super().scan(math.log(2) * q_BTHN, *rest)

    layer, plain = perturbed(LogLinearMamba2(8, d_state=3, head_dim=4)), Scaled(8, d_state=3, head_dim=4).double()
    plain.load_state_dict({name: p for name, p in layer.state_dict().items() if not name.startswith("level")})
    with torch.no_grad():
        layer.level_scale.zero_()
    x = random(2, 40, 8)
    torch.testing.assert_close(in_one_call(layer, x), in_one_call(plain, x))


def test_log_linear_state_has_a_memory_for_each_digit() -> None:
    layer = LogLinearMamba2(8, d_state=3, head_dim=4).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.memory.data.shape, state.memory.data.dtype) == ((3, 4, 4, 3, 4), torch.float32)
    x = torch.ones(3, 5, 8, dtype=torch.bfloat16)
    _, after = layer(x, state, context(x))
    assert type(after) is type(state)
    assert (after.memory.entries().shape, after.memory.data.dtype) == ((3, 3, 4, 3, 4), torch.float32)
    assert after.tail.dtype == torch.bfloat16
