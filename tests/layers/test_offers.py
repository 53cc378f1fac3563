"""Tests that what layers offer is what they compute with: weights give their outputs, decays change their memories."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lmzoo.layers.attention import Attention
from lmzoo.layers.capped_mlstm import CappedMLSTM
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.delta_product import DeltaProduct
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.layers.diff_attention import DiffAttention
from lmzoo.layers.dsa import DSA
from lmzoo.layers.dynamic_chunks import DynamicChunks
from lmzoo.layers.engram import TOKENS, Engram
from lmzoo.layers.experts import Experts
from lmzoo.layers.forgetting_attention import ForgettingAttention, ForgettingAttentionPro
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.gated_conv import GatedConv
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.gla import GLA
from lmzoo.layers.gru import GRU
from lmzoo.layers.hyper_connection import HyperConnection
from lmzoo.layers.kda import KDA
from lmzoo.layers.latent_attention import LatentAttention
from lmzoo.layers.layer import Layer
from lmzoo.layers.lightning_attention import LightningAttention
from lmzoo.layers.linear import Linear
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.log_linear import LogLinearMamba2
from lmzoo.layers.lstm import LSTM
from lmzoo.layers.mamba import Mamba
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.mamba3 import Mamba3
from lmzoo.layers.min_rnn import MinRNN
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.nsa import NSA
from lmzoo.layers.offers import VOCABULARY, one_hot_values
from lmzoo.layers.path_attention import PathAttention
from lmzoo.layers.retention import Retention
from lmzoo.layers.rg_lru import RGLRU
from lmzoo.layers.rwkv7 import Ranks, TimeMix
from lmzoo.layers.scaled_mamba2 import ScaledMamba2
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.shared_experts import SharedExperts
from lmzoo.layers.stack import Stack
from lmzoo.layers.ttt import TTT
from lmzoo.layers.xlstm import MLSTM, SLSTM
from lmzoo.ops.sparse_attention import block_attention

B, T, D, H = 2, 11, 16, 4
WITH_WEIGHTS: dict[str, Callable[[], Layer]] = {
    "attention": lambda: Attention(D, H, n_kv_heads=2, rope=Rope()),
    "window": lambda: Attention(D, H, window=3),
    "cap": lambda: ScoredAttention(D, H, cap=0.5),
    "alibi": lambda: ScoredAttention(D, H, alibi=True),
    "sinks": lambda: ScoredAttention(D, H, sinks=True),
    "gated": lambda: GatedAttention(D, H),
    "diff": lambda: DiffAttention(D, 2, 0.3, rope=Rope()),
    "forgetting": lambda: ForgettingAttention(D, H, n_kv_heads=2),
    "forgetting pro": lambda: ForgettingAttentionPro(D, H),
    "path": lambda: PathAttention(D, H, n_kv_heads=2),
    "path with gates": lambda: PathAttention(D, H, forget_gate=True),
    "linear": lambda: LinearAttention(D, H),
    "latent": lambda: LatentAttention(D, H, kv_rank=6, nope_dim=4, rope_dim=2, v_dim=5),
    "dsa": lambda: DSA(D, H, q_rank=8, top_keys=3, kv_rank=6, nope_dim=4, rope_dim=2, v_dim=5),
    "nsa": lambda: NSA(D, H, n_kv_heads=2, block_length=2, top_blocks=1, window=3),
}
FACTORS = (0.7, 1.3, 0.9, 1.1, 1.6)
LESS_THAN_ONE = ("sinks", "diff")  # the sum of the weights


def made(make: Callable[[], Layer]) -> Any:
    """Make a layer in float64 whose gates depend on the token."""
    layer = make().double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def inputs(length: int = T) -> tuple[Tensor, Context]:
    return torch.randn(B, length, D, dtype=torch.float64), Context(0, length, torch.device("cpu"), torch.float64)


def output(layer: Any, x_BTD: Tensor, ctx: Context, offered: dict[str, Tensor]) -> Tensor:
    """Compute the output of an attention from the weights that it offers."""
    weights = offered["attention.weights"]

    def attend(_q: Tensor, _k: Tensor, v_BSGV: Tensor) -> Tensor:
        v_BSHV = v_BSGV.repeat_interleave(weights.shape[2] // v_BSGV.shape[2], dim=2)
        return torch.einsum("bths,bshv->bthv", weights.to(v_BSHV.dtype), v_BSHV)

    if isinstance(layer, LatentAttention):
        return layer.out(layer.expanded(*layer.project(x_BTD, layer.low(x_BTD), ctx), attend).flatten(2))
    if isinstance(layer, LinearAttention):
        return layer.out(attend(*layer.project(x_BTD)).flatten(2))
    if isinstance(layer, NSA):
        q, recent, chosen, window = layer.project(x_BTD, ctx)
        read, _ = block_attention(q, *layer.compress(recent, None, ctx).unbind(2), layer.block_length, 0)
        v_BWHK = window[:, :, 1].repeat_interleave(2, dim=2)
        near = torch.einsum("bths,bshv->bthv", offered["attention.window"], v_BWHK)
        branches = (read, attend(q, q, chosen[:, :, 1]), near)
        gates = offered["gates.branch"].unbind(-1)
        return layer.out(sum(gate[..., None] * branch for gate, branch in zip(gates, branches, strict=True)).flatten(2))
    q, k, v = layer.project(x_BTD, ctx)
    if isinstance(layer, ForgettingAttention):
        q, k, v, _ = layer.prepare(x_BTD, q, k, v, None)
    if isinstance(layer, DiffAttention):
        v = rearrange(v, "b s (n g) k -> b s g (n k)", n=2)
        mean = attend(q, k, v)
        return layer.merge(F.rms_norm(mean, mean.shape[-1:], eps=layer.norm_eps) * (1 - layer.lambda_init), x_BTD)
    return layer.merge(attend(q, k, v), x_BTD)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
@torch.no_grad()
def test_offers_attention_weights_that_give_the_output(name: str) -> None:
    layer, (x_BTD, ctx) = made(WITH_WEIGHTS[name]), inputs()
    offered = layer.offers(x_BTD, ctx)
    weights = offered["attention.weights"]
    assert weights.shape == (B, T, 2 if name == "diff" else H, T)
    assert not weights.transpose(2, 3)[:, torch.ones(T, T).triu(1) > 0].any(), "no weight of a later token"
    sums = weights.sum(dim=-1)
    if name in LESS_THAN_ONE:
        assert (sums < 1).all()
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-5, atol=1e-5)
    expected, _ = layer(x_BTD, None, ctx)
    torch.testing.assert_close(output(layer, x_BTD, ctx, offered), expected)


@torch.no_grad()
def test_offers_of_cross_layer_attention_read_the_keys_of_another() -> None:
    first, second = made(lambda: Attention(D, H, carries=True)), made(lambda: CrossLayerAttention(D, H, window=4))
    x_BTD, ctx = inputs()
    y_BTD, _ = first(x_BTD, None, ctx)
    expected, _ = second(y_BTD, None, ctx)
    weights = second.offers(y_BTD, ctx)["attention.weights"]
    _, _, v_BTHK = first.project(x_BTD, ctx)
    torch.testing.assert_close(second.out(torch.einsum("bths,bshv->bthv", weights, v_BTHK).flatten(2)), expected)


def no_writing(layer: Any) -> None:
    """Switch off the delta rule, which also erases, so that a memory only decays."""
    if isinstance(layer, TimeMix):
        layer.rate.bias.fill_(-1e4)
    else:
        layer.largest_beta = 0.0


# Layer, and the memory in its state; after it the shape that the decays get beside the memory.
DECAYING: dict[str, tuple[Callable[[], Layer], str, Callable[[Tensor], Tensor]]] = {
    "gla": (lambda: GLA(D, H), "", lambda decay: decay[..., None]),
    "gated_delta": (lambda: GatedDelta(D, H, 4, 5), "memory", lambda decay: decay[..., None]),
    "kda": (lambda: KDA(D, H, 4), "memory", lambda decay: decay[..., None]),
    "delta_product": (lambda: DeltaProduct(D, H, 4, 5), "memory", lambda decay: decay[..., None, None]),
    "mamba": (lambda: Mamba(D, d_state=3), "h", lambda decay: decay),
    "mamba, signed": (lambda: Mamba(D, d_state=3, negative_eigenvalues=True), "h", lambda decay: decay),
    "mamba2": (lambda: Mamba2(D, d_state=3, head_dim=8), "memory", lambda decay: decay[..., None]),
    "scaled_mamba2": (
        lambda: ScaledMamba2(D, factors=FACTORS, dt_min=0.5, d_state=3, head_dim=8),
        "memory",
        lambda decay: decay[..., None],
    ),
    "mamba3": (lambda: Mamba3(D, d_state=4, head_dim=8), "memory.memory", lambda decay: decay[..., None]),
    "min_gru": (lambda: MinRNN(D), "", lambda decay: decay),
    "min_lstm": (lambda: MinRNN(D, cell="lstm"), "", lambda decay: decay),
    "rg_lru": (lambda: RGLRU(D, 2), "h", lambda decay: decay),
    "rwkv7": (lambda: TimeMix(D, 4, Ranks(3, 3, 3, 3), (0, 2)), "memory", lambda decay: decay.unflatten(-1, (4, 4, 1))),
    "lstm": (lambda: LSTM(D), "c", lambda decay: decay),
    "titans": (lambda: TTT(D, H, titans=True), "memory.now_BHJK", lambda decay: decay[..., None, None]),
}


def part(state: Any, path: str) -> Tensor:
    for name in filter(None, path.split(".")):
        state = getattr(state, name) if hasattr(state, name) else state[0]
    return state


def replaced(state: Any, path: str, value: Tensor) -> Any:
    name, _, rest = path.partition(".")
    if not name:
        return value
    name = name if hasattr(state, name) else state._fields[0]
    return state._replace(**{name: replaced(getattr(state, name), rest, value)})


@pytest.mark.parametrize("name", DECAYING)
@torch.no_grad()
def test_offers_decays_by_which_a_step_multiplies_the_memory(name: str) -> None:
    make, path, beside = DECAYING[name]
    layer, (x_BTD, ctx) = made(make), inputs(5)
    no_writing(layer)
    decay = beside(layer.offers(x_BTD, ctx)["gates.decay"][:, 4])
    _, state = layer(x_BTD[:, :4], layer.init_state(B, 5, x_BTD), Context(0, 4, ctx.device, ctx.dtype))
    change = torch.rand_like(part(state, path))
    moved = replaced(state, path, part(state, path) + change)
    step = Context(4, 1, ctx.device, ctx.dtype)
    (_, one), (_, other) = (layer(x_BTD[:, 4:], before, step) for before in (state, moved))
    torch.testing.assert_close(part(other, path) - part(one, path), decay * change, rtol=1e-6, atol=1e-9)
    assert decay.min() < 0.999


@pytest.mark.parametrize("make", [lambda: MLSTM(D, H), lambda: SLSTM(D, H)])
@torch.no_grad()
def test_offers_the_gates_of_xlstm(make: Callable[[], Layer]) -> None:
    """Memories are stored divided by exp(m); they decay by f, and a first token is written with exp(i)."""
    layer, (x_BTD, ctx) = made(make), inputs(3)
    offered = layer.offers(x_BTD, ctx)
    states = [layer.init_state(B, 3, x_BTD)]
    for t in range(3):
        states.append(layer(x_BTD[:, t : t + 1], states[-1], Context(t, 1, ctx.device, ctx.dtype))[1])
    # The normalizer is a memory too: f n + exp(i) in the sLSTM, f n + exp(i) k in the mLSTM, whose last column it is.
    if isinstance(layer, SLSTM):
        n = [state.memory.n * state.memory.m.exp() for state in states]
        for t in range(3):
            expected = offered["gates.decay"][:, t] * n[t] + offered["gates.write"][:, t]
            torch.testing.assert_close(n[t + 1], expected)
        outs = torch.cat([layer.norm(state.memory.h[:, None]) for state in states[1:]], dim=1)
        torch.testing.assert_close(layer(x_BTD, None, ctx)[0], outs)
        return
    x_BTE, _ = layer.up(x_BTD).chunk(2, dim=-1)
    (_, k_BTE, _), _, _ = layer.project(x_BTE, layer.conv(x_BTE, None, ctx)[0])
    k_BTHK = k_BTE.unflatten(-1, (H, -1)) / (k_BTE.shape[-1] // H) ** 0.5
    n = [state.memory.Cn[..., -1] * state.memory.m.exp()[..., None] for state in states]
    for t in range(3):
        decay, write = (offered[f"gates.{gate}"][:, t, :, None] for gate in ("decay", "write"))
        torch.testing.assert_close(n[t + 1], decay * n[t] + write * k_BTHK[:, t])


@torch.no_grad()
def test_offers_the_gates_of_lstm_and_gru() -> None:
    x_BTD, ctx = inputs(6)
    layer = made(lambda: LSTM(D))
    f, i, o = (layer.offers(x_BTD, ctx)[f"gates.{gate}"] for gate in ("decay", "write", "output"))
    y_BTD, _ = layer(x_BTD, None, ctx)
    h = c = torch.zeros(B, D, dtype=torch.float64)
    for t in range(6):
        g = (F.linear(x_BTD[:, t], layer.weight_ih, layer.bias) + F.linear(h, layer.weight_hh)).chunk(4, dim=-1)[2]
        c = f[:, t] * c + i[:, t] * g.tanh()
        h = o[:, t] * c.tanh()
        torch.testing.assert_close(h, y_BTD[:, t])
    layer = made(lambda: GRU(D))
    z, write, r = (layer.offers(x_BTD, ctx)[f"gates.{gate}"] for gate in ("decay", "write", "reset"))
    y_BTD, _ = layer(x_BTD, None, ctx)
    h = torch.zeros(B, D, dtype=torch.float64)
    for t in range(6):
        x, own = F.linear(x_BTD[:, t], layer.weight_ih, layer.bias), F.linear(h, layer.weight_hh)
        n = (x[:, 2 * D :] + r[:, t] * (own[:, 2 * D :] + layer.bias_hn)).tanh()
        h = write[:, t] * n + z[:, t] * h
        torch.testing.assert_close(h, y_BTD[:, t])


@pytest.mark.parametrize("make", [lambda: DeltaRule(D, H), lambda: GatedDelta(D, H, 4, 4, negative_eigenvalues=True)])
@torch.no_grad()
def test_offers_the_strength_with_which_a_delta_rule_writes(make: Callable[[], Layer]) -> None:
    """The memory of one token is beta k v^T with a key of length 1, up to a small number in its normalization."""
    layer, (x_BTD, ctx) = made(make), inputs(1)
    qkv, _ = layer.conv(layer.qkv(x_BTD), None, ctx)
    v_BHV = qkv[:, 0, -D:].unflatten(-1, (H, -1))
    _, state = layer(x_BTD, layer.init_state(B, 1, x_BTD), ctx)
    strength_BH = layer.offers(x_BTD, ctx)["gates.write"][:, 0]
    torch.testing.assert_close(state.memory.norm(dim=(2, 3)), strength_BH * v_BHV.norm(dim=-1), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_offers_the_step_sizes_with_which_mamba_writes() -> None:
    x_BTD, ctx = inputs(1)
    layer = made(lambda: Mamba(D, d_state=3))
    u_BTE, _ = layer.conv(layer.in_proj(x_BTD).chunk(2, dim=-1)[0], None, ctx)
    _, B_BTN, _ = layer.select(u_BTE)
    _, state = layer(x_BTD, layer.init_state(B, 1, x_BTD), ctx)
    written = (layer.offers(x_BTD, ctx)["gates.write"] * u_BTE)[:, 0, :, None] * B_BTN[:, 0, None]
    torch.testing.assert_close(state.h, written)


def rows(weight: Tensor, part: int, parts: int) -> Tensor:
    """Return the rows of a projection that make one of several equal outputs."""
    return weight.chunk(parts)[part]


# Layer, the module that its gated outputs pass next, and the weights of the gates alone.
GATED: dict[str, tuple[Callable[[], Layer], str, Callable[[Any], Tensor]]] = {
    "gated": (lambda: GatedAttention(D, H), "out", lambda layer: layer.gate.weight),
    "gla": (lambda: GLA(D, H), "out", lambda layer: layer.gate.weight),
    "retention": (lambda: Retention(D, H, rope=Rope()), "out", lambda layer: rows(layer.v_gate.weight, 1, 2)),
    "mamba": (lambda: Mamba(D, d_state=3), "out_proj", lambda layer: rows(layer.in_proj.weight, 1, 2)),
    "mamba3": (lambda: Mamba3(D, d_state=4, head_dim=8), "out_proj", lambda layer: layer.in_proj.weight[: 2 * D]),
    "kda": (lambda: KDA(D, H, 4), "out", lambda layer: layer.gate_up.weight),
    "gated_delta": (lambda: GatedDelta(D, H, 4, 4), "out", lambda layer: layer.gate.weight),
    "delta_product": (lambda: DeltaProduct(D, H, 4, 5), "out", lambda layer: layer.gate.weight),
    "rg_lru": (lambda: RGLRU(D, 2), "out", lambda layer: rows(layer.in_proj.weight, 0, 2)),
    "rwkv7": (lambda: TimeMix(D, 4, Ranks(3, 3, 3, 3), (0, 2)), "out", lambda layer: layer.gate.up.weight),
    "ttt": (lambda: TTT(D, H), "out", lambda layer: rows(layer.projections.weight, 2, 3)),
    "scaled_mamba2": (
        lambda: ScaledMamba2(D, factors=FACTORS, gate_last=True, d_state=3, head_dim=8),
        "out_proj",
        lambda layer: layer.in_proj.weight[: 2 * D],
    ),
    "mamba2, no norm": (
        lambda: Mamba2(D, d_state=3, head_dim=8, normalized=False),
        "out_proj",
        lambda layer: layer.in_proj.weight[: 2 * D],
    ),
    "lightning": (lambda: LightningAttention(D, H), "out", lambda layer: layer.gate.weight),
    "capped_mlstm": (
        lambda: CappedMLSTM(D, H, qk_dim=8, v_dim=D),
        "out",
        lambda layer: layer.output_gate.weight,
    ),
    "mlstm": (lambda: MLSTM(D, H), "down", lambda layer: rows(layer.up.weight, 1, 2)),
}


@pytest.mark.parametrize("name", GATED)
@torch.no_grad()
def test_offers_output_gates_that_are_factors_of_the_outputs(name: str) -> None:
    """The input of the last projection, divided by the gates, stays the same when the weights of the gates change."""
    make, last, weights_of_gates = GATED[name]
    layer, (x_BTD, ctx) = made(make), inputs(4)
    entered: list[Tensor] = []
    getattr(layer, last).register_forward_pre_hook(lambda _, args: entered.append(args[0].flatten(2)))
    gates = []
    for _ in range(2):
        gates.append(layer.offers(x_BTD, ctx)["gates.output"].flatten(2))
        layer(x_BTD, None, ctx)
        weights_of_gates(layer).mul_(-0.7)
    assert not torch.allclose(*gates)
    torch.testing.assert_close(entered[0] * gates[1], entered[1] * gates[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [lambda: Experts(D, 6, 5, 2), lambda: SharedExperts(D, 6, 5, 2, n_shared=0)])
@torch.no_grad()
def test_offers_the_experts_whose_weighted_sum_is_the_output(make: Callable[[], Layer]) -> None:
    layer, (x_BTD, _) = made(make), inputs(3)
    offered = layer.offers(x_BTD)
    chosen, weights = offered["router.chosen"], offered["router.weights"]
    assert chosen.shape == weights.shape == (B, 3, 2)
    assert offered["router.probabilities"].shape == (B, 3, 5)
    gate, up = torch.einsum("btd,efd->btef", x_BTD, layer.up).chunk(2, dim=-1)
    each_BTED = torch.einsum("btef,edf->bted", F.silu(gate) * up, layer.down)
    read = each_BTED.gather(2, chosen[..., None].expand(-1, -1, -1, D))
    torch.testing.assert_close((weights[..., None] * read).sum(dim=2), layer(x_BTD))


@torch.no_grad()
def test_offers_of_the_other_layers_have_the_shapes_of_the_vocabulary() -> None:
    x_BTD, ctx = inputs()
    convolution = made(lambda: GatedConv(D, 8, 2, 4)).offers(x_BTD, ctx)
    assert 0 < convolution["gates.output"].min() < convolution["gates.output"].max() < 1
    streams = made(lambda: HyperConnection(D, 3, RMSNorm(D), Linear(D, D))).offers(torch.stack([x_BTD] * 3, 2), ctx)
    assert {name: value.shape for name, value in streams.items()} == {
        "streams.read": (B, T, 3),
        "streams.write": (B, T, 3),
    }
    chunks = made(lambda: DynamicChunks(D, RMSNorm(D), Stack([Linear(D, D)]))).offers(x_BTD, ctx)["chunks.start"]
    assert chunks.shape == (B, T)
    assert (chunks[:, 0] == 1).all()
    ctx.carry[TOKENS] = torch.randint(7, (B, T))
    memory = made(lambda: Engram(D, 7, memory_dim=16, table_size=9))
    gate_BT = memory.offers(x_BTD, ctx)["gates.output"]
    assert gate_BT.shape == (B, T)
    assert ((gate_BT > 0) & (gate_BT < 1)).all()
    levels = made(lambda: LogLinearMamba2(D, d_state=3, head_dim=8)).offers(x_BTD, ctx)
    assert levels["gates.decay"].shape == (B, T, 4, 1)


def test_one_hot_values_have_the_weights_as_their_mean() -> None:
    weights, values = torch.rand(2, 3, 5), one_hot_values(torch.zeros(2, 5, 3, 4))
    assert torch.equal(torch.einsum("bgs,bsgx->bgx", weights, values), weights)


def test_vocabulary_is_all_that_layers_offer() -> None:
    folder = Path(__file__).parents[2] / "lmzoo" / "layers"
    named = {
        name
        for file in folder.glob("*.py")
        if file.name != "offers.py"
        for name in re.findall(r'"((?:attention|gates|router|chunks|streams)\.\w+)"', file.read_text(encoding="utf-8"))
    }
    assert named == set(VOCABULARY)


def test_offers_are_not_asked_in_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def offers(*_: object) -> None:
        raise AssertionError("forward must not pay for what only a recording needs")

    for layer in (Attention(D, H), Mamba(D, d_state=3), Experts(D, 6, 5, 2)):
        monkeypatch.setattr(type(layer), "offers", offers)
        x_BTD, ctx = torch.randn(B, T, D), Context(0, T, torch.device("cpu"), torch.float32)
        assert isinstance(layer, nn.Module)
        layer(x_BTD) if isinstance(layer, Experts) else layer(x_BTD, None, ctx)
