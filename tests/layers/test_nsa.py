"""Native sparse attention: what a query reads, its compression, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch

from lmzoo.layers.nsa import NSA, BlockMLP
from lmzoo.state import clone, leaves_of
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random

C = 3  # tokens of a block


def make(**settings: object) -> NSA:
    sizes = {"n_kv_heads": 2, "block_length": C, "top_blocks": 1, "window": 4}
    return perturbed(NSA(24, 4, **{**sizes, **settings}))


def only(branch: int, **settings: object) -> NSA:
    """Returns a layer in which the gates of the other branches are closed."""
    layer = make(**settings)
    with torch.no_grad():
        layer.gates.weight.zero_()
        layer.gates.bias.fill_(-1e9)
        layer.gates.bias.view(-1, 3)[:, branch] = 0.0
    return layer


def read_by(layer: NSA, x: torch.Tensor, t: int) -> list[int]:
    """Returns the positions of the tokens on which the output at t depends, apart from t itself."""
    x = x.clone().requires_grad_()
    y, _ = layer(x, None, context(x))
    (gradient,) = torch.autograd.grad(y[0, t].sum(), x)
    return [s for s in gradient[0].abs().sum(-1).nonzero().flatten().tolist() if s != t]


def test_nsa_compressed_attention_reads_complete_blocks() -> None:
    layer, x = only(0), random(1, 12, 24)
    assert read_by(layer, x, 1) == []
    assert read_by(layer, x, 2) == [0, 1]
    assert read_by(layer, x, 7) == [0, 1, 2, 3, 4, 5]
    assert read_by(layer, x, 8) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_nsa_chosen_attention_reads_forced_blocks_and_one_other() -> None:
    layer, x = only(1), random(1, 20, 24)
    assert read_by(layer, x, 1) == [0]
    assert read_by(layer, x, 10) == [*range(10)], "four blocks: three are forced, and the other one is chosen"
    read = read_by(layer, x, 19)  # blocks 0 to 6, of which 5 and 6 are the last; two sets for two key heads
    assert {*range(3), *range(15, 19)} <= {*read}
    assert 0 < len({s // C for s in read} - {0, 5, 6}) <= 2


def test_nsa_window_reads_the_last_tokens() -> None:
    assert read_by(only(2), random(1, 12, 24), 9) == [6, 7, 8]


def test_nsa_branches_have_keys_of_their_own() -> None:
    for branch in range(3):
        layer, x = only(branch), random(1, 12, 24)
        layer(x, None, context(x))[0].sum().backward()
        moved = layer.kv.weight.grad.unflatten(0, (3, -1)).flatten(1).any(1)
        assert moved.tolist() == [branch == i for i in range(3)]


@pytest.mark.parametrize(
    "lengths", [(17,), (1,) * 17, (4, 1, 12), (2, 15), (8, 1, 8), (3, 3, 11), (16, 1), (4, 13), (1, 16)]
)
@pytest.mark.parametrize("block_length", [1, C, 40])
def test_nsa_in_pieces_equals_one_call(block_length: int, lengths: tuple[int, ...]) -> None:
    layer, x = make(block_length=block_length), random(2, 17, 24)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_nsa_leaves_the_old_state() -> None:
    layer, x = make(), random(2, 9, 24)
    _, state = layer(x[:, :5], layer.init_state(2, 4, x), context(x[:, :5]))
    before = clone(state)
    outputs = [layer(piece, state, context(piece, 5))[0] for piece in (x[:, 5:], x[:, 6:], x[:, 5:])]
    assert torch.equal(outputs[0], outputs[2])
    assert [leaf.length for leaf in leaves_of(state)] == [C, 1, 5, 4]
    for kept, copied in zip(leaves_of(state), leaves_of(before), strict=True):
        assert torch.equal(kept.entries(), copied.entries())


def test_nsa_block_network_tells_positions_in_the_block_apart() -> None:
    network, x = perturbed(BlockMLP(C, 4)), random(2, 5, 2, C, 4)
    y = network(x)
    assert y.shape == (2, 5, 2, 4)
    assert (network(x.flip(-2)) - y).abs().amax() > 1e-3
    hidden = torch.nn.functional.gelu((x + network.positions).flatten(-2) @ network.up.T)
    torch.testing.assert_close(y, hidden @ network.down.T)
    same = network(torch.zeros(1, 1, 1, C, 4, dtype=torch.float64))
    assert same.abs().amax() > 1e-3, "the positions are added before the network"


@pytest.mark.parametrize("T", [2, 3, 20])
def test_nsa_declares_its_flops(T: int) -> None:
    declared, counted = declared_and_counted_flops(make(), random(2, T, 24))
    assert declared == pytest.approx(counted)
