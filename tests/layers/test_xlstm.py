"""xLSTM's mixers: decoding in pieces, and their states.

tests/ops/test_mlstm.py and test_slstm.py compare the recurrences with their equations, tests/backbones/test_xlstm.py
the whole layers with the authors' package.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.layer import Layer
from lmzoo.layers.xlstm import MLSTM, SLSTM
from lmzoo.ops.mlstm import CHUNK_LENGTH
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (CHUNK_LENGTH + 7,)])
@pytest.mark.parametrize("layer", [perturbed(MLSTM(8, 2)), perturbed(SLSTM(8, 2))], ids=["mlstm", "slstm"])
def test_xlstm_in_pieces_equals_one_call(layer: Layer, lengths: tuple[int, ...]) -> None:
    x = random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_mlstm_equals_its_equations() -> None:
    """One row, one token after another, with the memory as (values, keys) and without a scale."""
    layer, x_TD = perturbed(MLSTM(8, 2, d_conv=3)), random(9, 8)
    x_TE, z_TE = (x_TD @ layer.up.weight.T).chunk(2, dim=-1)
    K = 8
    S, n, out = [torch.zeros(K, K).double() for _ in range(2)], [torch.zeros(K).double() for _ in range(2)], []
    for t in range(9):
        taps = F.pad(x_TE, (0, 0, 2, 0))[t : t + 3]
        mixed = F.silu((taps * layer.conv.weight.T).sum(0) + layer.conv.bias)
        q, k, v = (torch.block_diag(*m.weight) @ y for m, y in ((layer.q, mixed), (layer.k, mixed), (layer.v, x_TE[t])))
        gates = layer.gates.weight @ torch.cat([q, k, v]) + layer.gate_bias
        ys = []
        for h, part in enumerate(torch.arange(16).split(K)):
            i, f = gates[h].exp(), gates[2 + h].sigmoid()
            S[h] = f * S[h] + i * torch.outer(v[part], k[part]) / K**0.5
            n[h] = f * n[h] + i * k[part] / K**0.5
            y = S[h] @ q[part] / (n[h] @ q[part]).abs().clamp(min=1)
            ys.append((y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt())
        y = torch.cat(ys) * layer.norm.weight + layer.skip * mixed
        out.append(layer.down.weight @ (y * F.silu(z_TE[t])))
    torch.testing.assert_close(in_one_call(layer, x_TD[None])[0], torch.stack(out), rtol=1e-4, atol=1e-4)


def test_slstm_equals_its_equations() -> None:
    layer, x_TD = perturbed(SLSTM(8, 2, d_conv=3)), random(9, 8)
    h, c, n = (torch.zeros(2, 4).double() for _ in range(3))
    out = []
    for t in range(9):
        taps = F.pad(x_TD, (0, 0, 2, 0))[t : t + 3]
        mixed = F.silu((taps * layer.conv.weight.T).sum(0) + layer.conv.bias)
        inputs = {"i": mixed, "f": mixed, "z": x_TD[t], "o": x_TD[t]}
        gates = {}
        for g, (name, y) in enumerate(inputs.items()):
            rows = slice(4 * g, 4 * g + 4)
            from_input = (torch.block_diag(*getattr(layer, name).weight) @ y).view(2, 4)
            recurrent = torch.stack([layer.recurrent[head, rows] @ h[head] for head in range(2)])
            gates[name] = from_input + recurrent + layer.gate_bias[:, rows]
        c = gates["f"].sigmoid() * c + gates["i"].exp() * gates["z"].tanh()
        n = gates["f"].sigmoid() * n + gates["i"].exp()
        h = gates["o"].sigmoid() * c / n
        out.append((h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt())
    expected = torch.stack(out).flatten(1) * layer.norm.weight
    torch.testing.assert_close(in_one_call(layer, x_TD[None])[0], expected)


def test_mlstm_initialization_follows_the_authors() -> None:
    layer = MLSTM(64, 4, qkv_block=8)
    assert layer.up.bias is layer.gates.bias is layer.down.bias is layer.norm.bias is None
    assert layer.q.weight.shape == (16, 8, 8)
    for weight in (layer.up.weight, layer.q.weight, layer.k.weight, layer.v.weight):
        assert abs(weight.std() / (2 / (5 * 64)) ** 0.5 - 1) < 0.1
    assert not layer.gates.weight.any()
    assert (layer.skip == 1).all()
    torch.testing.assert_close(layer.gate_bias[4:], torch.tensor([3.0, 4.0, 5.0, 6.0]))
    assert 0.05 < MLSTM(64, 64).gate_bias[:64].std() < 0.15


@pytest.mark.parametrize("depth", [0.0, 0.5])
def test_slstm_initialization_follows_the_authors(depth: float) -> None:
    layer = SLSTM(64, 2, depth=depth)
    for linear in (layer.i, layer.f, layer.z, layer.o):
        assert abs(linear.weight.std() / (2 / (5 * 64)) ** 0.5 - 1) < 0.1
    assert not layer.recurrent.any()
    assert layer.norm.bias is None
    i, f, z, o = layer.gate_bias.unflatten(1, (4, 32)).unbind(1)
    assert not torch.cat([i, z, o]).any()
    ramp = torch.arange(32) / 31
    torch.testing.assert_close(f, (5 - 12 * ramp ** (0.3 + 1.3 * depth)).expand(2, 32))
    assert SLSTM(2, 2).gate_bias[:, 1].tolist() == [5, 5], "a head of one feature"


@pytest.mark.parametrize("layer", [MLSTM(8, 2), SLSTM(8, 2)], ids=["mlstm", "slstm"])
def test_xlstm_declares_its_flops(layer: Layer) -> None:
    declared, counted = declared_and_counted_flops(layer, random(1, 7, 8))
    assert declared == counted


@pytest.mark.parametrize("layer", [MLSTM(8, 2), SLSTM(8, 2)], ids=["mlstm", "slstm"])
def test_xlstm_memory_is_float32_in_a_bfloat16_model(layer: Layer) -> None:
    tail, memory = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))  # type: ignore[operator]
    assert tail.dtype == torch.bfloat16
    assert all(piece.dtype == torch.float32 and len(piece) == 3 for piece in memory)
