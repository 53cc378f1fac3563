"""Latent attention compared with a loop over its equations, its two forms, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.layers.context import Rope
from lmzoo.layers.latent_attention import LatentAttention
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

SIZES = {"kv_rank": 10, "nope_dim": 5, "rope_dim": 4, "v_dim": 3}


def make(**settings: object) -> LatentAttention:
    return perturbed(LatentAttention(12, 3, **{**SIZES, **settings}))


def rotated(x_P: Tensor, t: int, theta: float) -> Tensor:
    """Rotates the pairs of features i and i + P/2 as complex numbers."""
    half = len(x_P) // 2
    angle = t * theta ** -(torch.arange(half, dtype=x_P.dtype) / half)
    turned = torch.complex(x_P[:half], x_P[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag])


def by_equations(layer: LatentAttention, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one head and one query at a time."""
    B, T, _ = x_BTD.shape
    H, N, V, R, theta = layer.n_heads, layer.nope_dim, layer.v_dim, layer.kv_rank, layer.rope.theta
    low = x_BTD if layer.q_down is None else layer.q_norm(x_BTD @ layer.q_down.weight.T)
    q = (low @ layer.q.weight.T).unflatten(-1, (H, -1))
    down = x_BTD @ layer.kv_down.weight.T
    kv = layer.kv_up(layer.kv_norm(down[..., :R])).unflatten(-1, (H, N + V))
    y = torch.zeros(B, T, H, V, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                position_q = rotated(q[b, t, h, N:], t, theta)
                scores = torch.stack(
                    [
                        q[b, t, h, :N] @ kv[b, s, h, :N] + position_q @ rotated(down[b, s, R:], s, theta)
                        for s in range(t + 1)
                    ]
                )
                y[b, t, h] = (scores / math.sqrt(layer.head_dim)).softmax(0) @ kv[b, : t + 1, h, N:]
    return y.flatten(2) @ layer.out.weight.T


@pytest.mark.parametrize("q_rank", [None, 6])
def test_latent_attention_equals_its_equations(q_rank: int | None) -> None:
    layer, x = make(q_rank=q_rank, rope=Rope(50.0), norm_eps=1e-2), random(2, 7, 12)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_latent_attention_absorbed_form_equals_the_expanded_one_with_gradients() -> None:
    layer, x = make(q_rank=6), random(2, 9, 12)
    q_BTHK, cache_BTC = layer.project(x, layer.low(x), context(x))
    outputs = [form(q_BTHK[:, 4:], cache_BTC) for form in (layer.absorbed, layer.expanded)]
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=0)
    parameters = [p for name, p in layer.named_parameters() if not name.startswith("out")]
    absorbed, expanded = (torch.autograd.grad(y.square().sum(), parameters, retain_graph=True) for y in outputs)
    torch.testing.assert_close(absorbed, expanded, atol=1e-11, rtol=0)


@pytest.mark.parametrize("kv_rank", [3, 10])
@pytest.mark.parametrize("lengths", [(30,), (1,) * 30, (20, 1, 9), (2, 28)])
def test_latent_attention_in_pieces_equals_one_call(lengths: tuple[int, ...], kv_rank: int) -> None:
    layer, x = make(kv_rank=kv_rank), random(2, 30, 12)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x), atol=1e-12, rtol=0)


def test_latent_attention_absorbs_while_it_takes_fewer_operations() -> None:
    """Per key and head: 2 R - N - V = 12 more per query, against a matrix of R (N + V) = 80 elements."""
    layer = make()
    assert [layer.absorbs(T) for T in (1, 6, 7, 100)] == [True, True, False, False]
    assert make(kv_rank=4).absorbs(1000), "a short latent is cheaper than keys and values"


@pytest.mark.parametrize(("T", "form"), [(1, "absorbed"), (7, "expanded")])
def test_latent_attention_decodes_in_the_form_with_fewer_operations(
    T: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x, used = make(), random(2, T, 12), []
    for name in ("absorbed", "expanded"):
        attend = getattr(layer, name)
        monkeypatch.setattr(
            layer, name, lambda q, cache, name=name, attend=attend: (used.append(name), attend(q, cache))[1]
        )
    layer(x, layer.init_state(2, T, x), context(x))
    assert used == [form]


def test_latent_attention_caches_one_vector_per_token() -> None:
    layer = make()
    state = layer.init_state(2, 9, torch.zeros(0))
    assert state.data.shape == (2, 9, 14)
    assert layer.flops(7) == 2 * 7 * 3 * (5 + 4 + 3)
