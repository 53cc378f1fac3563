"""Tests which rows of a mixer are its queries, keys and values: against each mixer's definition, computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.attention import Attention
from lmzoo.layers.capped_mlstm import CappedMLSTM
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.delta_product import DeltaProduct
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.layers.diff_attention import DiffAttention
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.gla import GLA
from lmzoo.layers.kda import KDA
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.norm import l2_normalize
from lmzoo.layers.nsa import NSA
from lmzoo.layers.projections import Projection, output, split_rows, transfer
from lmzoo.layers.retention import Retention
from lmzoo.layers.rwkv7 import Ranks, TimeMix
from lmzoo.layers.ttt import TTT
from lmzoo.ops.mlstm import naive_mlstm
from lmzoo.ops.rope import apply_rope
from lmzoo.transplant.weights import pass_on

D, H, G, K, T = 32, 4, 2, 8, 7
X = torch.randn(1, T, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
W = {
    name: torch.randn(n, K, D, generator=torch.Generator().manual_seed(n + ord(name[0])), dtype=torch.float64) / 4
    for name, n in (("q", H), ("k", G), ("v", G), ("out", H))
}
HEAD = torch.arange(H) // (H // G)  # the key and value head that each query head reads


def source() -> dict[str, Projection]:
    """The projections of an attention with two heads of keys and values for four of queries."""
    return Attention(D, H, n_kv_heads=G).double().transferable() | {name: Projection(w) for name, w in W.items()}


def heads(name: str) -> Tensor:
    """Queries, keys or values of the four heads, (H, T, K)."""
    w_HKD = W[name] if name == "q" else W[name][HEAD]
    return torch.einsum("td,hkd->htk", X[0], w_HKD)


def merged(y_HTK: Tensor) -> Tensor:
    """The output of the heads, (1, T, D)."""
    return torch.einsum("htk,hkd->td", y_HTK, W["out"])[None]


def run(layer: Layer, *, with_out: bool = True) -> Tensor:
    taken = transfer(source(), layer.double().transferable())
    assert taken == (["q", "k", "v", "out"] if with_out else ["q", "k"])
    if hasattr(layer, "conv"):
        pass_on(layer.conv)
    return layer(X, None, Context(0, T, X.device, X.dtype))[0]


def test_split_rows_capped_mlstm_computes_the_definition() -> None:
    layer = CappedMLSTM(D, H, qk_dim=D, v_dim=D)
    found = run(layer)
    q, k, v = (heads(name).transpose(0, 1)[None] for name in "qkv")
    i_BTH, f_BTH = layer.write_and_keep(X)
    y_BTHK, _ = naive_mlstm(q, k / K**0.5, v, i_BTH, F.logsigmoid(f_BTH))
    gated = torch.sigmoid(layer.output_gate(X)) * layer.norm(y_BTHK)
    torch.testing.assert_close(found, merged(gated[0].unflatten(-1, (H, K)).transpose(0, 1)))


def test_split_rows_linear_attention_computes_the_definition() -> None:
    q, k, v = (heads(name) for name in "qkv")
    phi = [torch.where(x > 0, x + 1, x.exp()) for x in (q, k)]
    scores = (phi[0] @ phi[1].mT).tril()
    expected = merged(scores @ v / (scores.sum(dim=-1, keepdim=True) + 1e-6))
    torch.testing.assert_close(run(LinearAttention(D, H)), expected)


@pytest.mark.parametrize("n_kv_heads", [G, H])
def test_split_rows_attention_computes_the_definition(n_kv_heads: int) -> None:
    q, k, v = (heads(name) for name in "qkv")
    scores = (q @ k.mT * K**-0.5).masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf)
    expected = merged(scores.softmax(dim=-1) @ v)
    torch.testing.assert_close(run(Attention(D, H, n_kv_heads=n_kv_heads)), expected)


def delta(layer: DeltaRule | GatedDelta, decay_TH: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """The delta rule, with a decay, token by token."""
    q, k, v = (F.silu(heads(name)) for name in "qkv")
    q, k = l2_normalize(q) * K**-0.5, l2_normalize(k)
    beta_TH = layer.beta(X)[0].sigmoid()
    memory, out = torch.zeros(H, K, K, dtype=torch.float64), []
    for t in range(T):
        memory = memory * decay_TH[t, :, None, None]
        read = torch.einsum("hkv,hk->hv", memory, k[:, t])
        memory = memory + torch.einsum("hk,hv->hkv", k[:, t], beta_TH[t, :, None] * (v[:, t] - read))
        out.append(torch.einsum("hkv,hk->hv", memory, q[:, t]))
    y_THK = layer.norm(torch.stack(out))
    return merged(gate(y_THK).transpose(0, 1))


def test_split_rows_delta_rule_computes_the_definition() -> None:
    layer = DeltaRule(D, H)
    found = run(layer)
    torch.testing.assert_close(found, delta(layer, torch.ones(T, H, dtype=torch.float64), lambda y: y))


def test_split_rows_gated_delta_rule_computes_the_definition() -> None:
    layer = GatedDelta(D, H, K, K)
    found = run(layer)
    expected = delta(layer, layer.log_decay(X)[0].flatten(1).exp(), lambda y: y * layer.output_gate(X)[0])
    torch.testing.assert_close(found, expected)


def test_split_rows_retention_computes_the_definition() -> None:
    layer = Retention(D, H, rope=Rope())
    found = run(layer, with_out=False)  # values are twice as wide
    table = Context(0, T, X.device, X.dtype).rope(Rope(), K)
    q, k = (apply_rope(heads(name).transpose(0, 1)[None], *table)[0].transpose(0, 1) for name in "qk")
    v_BTE, gate_BTE = layer.v_gate(X).chunk(2, dim=-1)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    rate_H = 1 - 2.0 ** (-5 - torch.arange(H, dtype=torch.float64))
    weights = (rate_H[:, None, None] ** distance.clamp(min=0)) * (q @ k.mT) * K**-0.5
    y_HTV = weights.tril() @ v_BTE[0].unflatten(-1, (H, 2 * K)).transpose(0, 1)
    expected = layer.out(F.silu(gate_BTE) * layer.norm(y_HTV.transpose(0, 1)[None]))
    torch.testing.assert_close(found, expected)


# For each mixer: what it takes, and the module and the first row of its projections in its own weights.
ROWS: list[tuple[Layer, str, dict[str, tuple[str, int]]]] = [
    (KDA(D, H, K), "q k v out", {"q": ("qkv", 0), "k": ("qkv", D), "v": ("qkv", 2 * D)}),
    (DeltaProduct(D, H, K, K, n_steps=2), "q k v out", {"q": ("qkv", 0)}),
    (
        TimeMix(D, K, Ranks(4, 4, 4, 4), (0, 1)),
        "q k v out",
        {"q": ("receptance", 0), "k": ("key", 0), "v": ("value", 0)},
    ),
    (NSA(D, H, n_kv_heads=G, block_length=4), "q k v out", {"q": ("q", 0)}),
    (TTT(D, H), "v out", {"v": ("projections", D)}),  # the first rows are for queries and keys together
    (GLA(D, H), "v out", {"v": ("qkv", D)}),  # its keys are half as wide
    (
        Mamba2(D, d_state=K, head_dim=K, n_groups=H, expand=1),
        "q k v out",
        {"v": ("in_proj", D), "k": ("in_proj", 2 * D), "q": ("in_proj", 3 * D)},  # after the gate
    ),
    (Mamba2(D), "", {}),
    (DiffAttention(D, 2, 0.5), "", {}),
]


@pytest.mark.parametrize(("layer", "taken", "rows"), ROWS, ids=[type(layer).__name__ for layer, _, _ in ROWS])
def test_transfer_copies_into_the_rows_of_each_mixer(
    layer: Layer, taken: str, rows: dict[str, tuple[str, int]]
) -> None:
    layer = layer.double()
    assert transfer(source(), layer.transferable()) == taken.split()
    for name, (module, first) in rows.items():
        wanted = W[name] if name == "q" else W[name][HEAD]
        weight: Tensor = getattr(layer, module).weight
        assert torch.equal(weight[first : first + D], wanted.flatten(0, 1))
    if taken:
        out: nn.Linear = getattr(layer, "out", None) or layer.out_proj
        assert torch.equal(out.weight, W["out"].flatten(0, 1).T)


def test_transfer_gives_every_step_and_every_branch_the_same_keys() -> None:
    product, sparse = DeltaProduct(D, H, K, K, n_steps=2).double(), NSA(D, H, n_kv_heads=G, block_length=4).double()
    for layer in (product, sparse):
        transfer(source(), layer.transferable())
    keys = W["k"][HEAD].flatten(0, 1)
    assert torch.equal(product.qkv.weight[D : 3 * D], torch.cat([keys, keys]))
    values = sparse.kv.weight.unflatten(0, (3, 2, G, K))[:, 1]
    assert torch.equal(values, W["v"].expand(3, -1, -1, -1))


def test_transfer_moves_and_clears_biases() -> None:
    given, wanted = Attention(D, H, n_kv_heads=G, bias=True), Attention(D, H, bias=True)
    nn.init.normal_(given.qkv.bias)
    assert transfer(given.transferable(), wanted.transferable()) == ["q", "k", "v", "out"]
    assert torch.equal(wanted.transferable()["v"].bias, given.transferable()["v"].bias[HEAD])
    nn.init.normal_(wanted.qkv.bias)
    transfer(Attention(D, H).transferable(), wanted.transferable())
    assert not wanted.qkv.bias.any()


def test_transfer_takes_no_output_without_its_values() -> None:
    fewer = Attention(D, H, n_kv_heads=1)
    assert transfer(Attention(D, H).transferable(), fewer.transferable()) == ["q"]


def test_output_is_a_view() -> None:
    linear = nn.Linear(H * K, D)
    output(linear, H, K).weight.data.zero_()
    assert not linear.weight.any()
    assert [part.weight.shape for part in split_rows(linear, a=(1, 8), b=(3, 8)).values()] == [(1, 8, 32), (3, 8, 32)]
