"""The mLSTM with capped gates: compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import torch

from lmzoo.layers.capped_mlstm import CappedMLSTM
from lmzoo.ops.mlstm import CHUNK_LENGTH
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def layer_of(cap: float = 1.5) -> CappedMLSTM:
    """Returns a layer whose input gates are open, and whose gates differ from token to token."""
    layer = perturbed(CappedMLSTM(8, 2, qk_dim=6, v_dim=10, cap=cap, norm_eps=0.1))
    with torch.no_grad():
        layer.gate_bias.mul_(0.1)
    return layer  # type: ignore[return-value]


@torch.no_grad()
def test_capped_mlstm_equals_its_equations() -> None:
    """One row, one token after another, with the memory as (values, keys) and without a scale."""
    layer, x_TD = layer_of(), random(9, 8)
    S, n, out = [torch.zeros(5, 3).double() for _ in range(2)], [torch.zeros(3).double() for _ in range(2)], []
    for t in range(9):
        q, k, v = (layer.qkv.weight @ x_TD[t]).split([6, 6, 10])
        gates = layer.gates.weight @ x_TD[t] + layer.gate_bias
        gates = 1.5 * torch.tanh(gates / 1.5)
        ys = []
        for h in range(2):
            i, f = gates[h].exp(), gates[2 + h].sigmoid()
            key, query, value = k[3 * h : 3 * h + 3] / 3**0.5, q[3 * h : 3 * h + 3], v[5 * h : 5 * h + 5]
            S[h] = f * S[h] + i * torch.outer(value, key)
            n[h] = f * n[h] + i * key
            y = S[h] @ query / (n[h] @ query).abs().clamp(min=1)
            ys.append((y - y.mean()) / (y.var(unbiased=False) + 0.1).sqrt())
        gated = torch.sigmoid(layer.output_gate.weight @ x_TD[t]) * torch.cat(ys) * layer.norm.weight
        out.append(layer.out.weight @ gated)
    torch.testing.assert_close(in_one_call(layer, x_TD[None])[0], torch.stack(out), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_capped_mlstm_offers_the_gates_of_its_memory() -> None:
    """The normalizer is the last column of the memory: n = f n + exp(i) k."""
    layer, x_BTD = layer_of(), random(2, 2, 8)
    offered, states = layer.offers(x_BTD, context(x_BTD)), [layer.init_state(2, 2, x_BTD)]
    for t in range(2):
        states.append(layer(x_BTD[:, t : t + 1], states[-1], context(x_BTD[:, t : t + 1], t))[1])
    n_0, n_1 = (state.Cn[..., -1] * state.m.exp()[..., None] for state in states[1:])
    k_BHK = layer.qkv(x_BTD)[:, 1, 6:12].unflatten(-1, (2, 3)) / 3**0.5
    decay, write = (offered[f"gates.{gate}"][:, 1, :, None] for gate in ("decay", "write"))
    torch.testing.assert_close(n_1, decay * n_0 + write * k_BHK)


def test_capped_mlstm_in_pieces_equals_one_call() -> None:
    layer, x = layer_of(), random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, CHUNK_LENGTH + 3, 1, 1, 7), in_one_call(layer, x))


def test_capped_mlstm_declares_its_flops_and_begins_with_closed_input_gates() -> None:
    layer = CappedMLSTM(8, 2, qk_dim=6, v_dim=10)
    assert layer.gate_bias.tolist() == [-10, -10, 3, 6]
    assert not layer.gates.weight.any()
    declared, counted = declared_and_counted_flops(layer, random(1, 7, 8))
    assert declared == counted
