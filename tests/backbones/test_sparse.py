"""Sparse attention compared with transformers' DeepseekV32ForCausalLM ("dsa") and with its equations ("nsa").

tests/ops/test_sparse_attention.py compares the parts of "nsa" with flash-linear-attention.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

import lmzoo
from lmzoo import losses
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf import deepseek
from lmzoo.hf import weights as hf
from lmzoo.hf.layouts import Rows
from lmzoo.layers.dsa import DSA
from lmzoo.layers.nsa import NSA
from tests.backbones.against_transformers import assert_decoding_equals, ours_with_weights_of, perturb, random_tokens
from tests.backbones.references import Weights, assert_close, assert_equals_reference, mixer_model

THEIRS = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 2,
    "q_lora_rank": 10,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "index_n_heads": 3,
    "index_head_dim": 8,
    "index_topk": 5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "attn_implementation": "eager",
}
OURS = {
    "vocab_size": 61,
    "context_length": 16,
    "d_model": 32,
    "d_ff": 48,
    "n_layers": 2,
    "n_heads": 4,
    "q_rank": 10,
    "kv_rank": 12,
    "nope_dim": 10,
    "rope_dim": 6,
    "v_dim": 8,
    "index_heads": 3,
    "index_dim": 8,
    "top_keys": 5,
    "rope_theta": 100.0,
    "norm_eps": 1e-6,
}
_OUR_INDEXER, _INDEXER = "blocks.{i}.0.inner.index_", "model.layers.{i}.self_attn.indexer."
INDEXER: hf.Weights = {
    f"{_OUR_INDEXER}q.weight": f"{_INDEXER}wq_b.weight",
    f"{_OUR_INDEXER}k.weight": f"{_INDEXER}wk.weight",
    f"{_OUR_INDEXER}norm.weight": f"{_INDEXER}k_norm.weight",
    f"{_OUR_INDEXER}norm.bias": f"{_INDEXER}k_norm.bias",
    f"{_OUR_INDEXER}weights.weight": f"{_INDEXER}weights_proj.weight",
}
DENSE: hf.Weights = {
    name: getattr(source, "source", source)
    for name, source in deepseek.V2.items()
    if not any(word in name for word in ("router", "shared", "inner.up", "inner.down"))
} | {
    "blocks.{i}.1.inner.up.weight": Rows(
        ("model.layers.{i}.mlp.gate_proj.weight", "model.layers.{i}.mlp.up_proj.weight")
    ),
    "blocks.{i}.1.inner.down.weight": "model.layers.{i}.mlp.down_proj.weight",
}


@pytest.fixture
def _stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces `Tensor.topk`, which breaks ties by the length of its input: many of their scores are zero."""

    def topk(scores: Tensor, k: int, dim: int = -1) -> Any:
        found = scores.sort(dim=dim, descending=True, stable=True)
        return torch.return_types.topk([x.narrow(dim, 0, k) for x in found])

    monkeypatch.setattr(Tensor, "topk", topk)


@pytest.mark.usefixtures("_stable")
@pytest.mark.parametrize("top_keys", [5, 40])
def test_sparse_dsa_logits_gradients_and_decoding_equal_transformers(top_keys: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = perturb(DeepseekV32ForCausalLM(DeepseekV32Config(**{**THEIRS, "index_topk": top_keys})))
    ours = ours_with_weights_of(theirs, "sparse", {**DENSE, **INDEXER}, **{**OURS, "top_keys": top_keys})
    idx, targets = random_tokens(61, 3, 30), random_tokens(61, 3, 30, seed=2)
    expected = theirs(idx, use_cache=False).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    logits, loss = ours(idx, targets)
    assert_close(logits, expected, "logits")
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    loss.backward()
    found = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    wanted = hf.convert(found, DENSE, to_dict(ours.config))
    for name, parameter in ours.named_parameters():
        if ".index_" in name:
            assert parameter.grad is None, "the indexer learns from its auxiliary loss alone"
        else:
            assert parameter.grad is not None
            assert_close(parameter.grad, wanted[name], name)
    with torch.no_grad():
        assert_decoding_equals(ours, idx, expected.detach(), [11, 1, 3] + [1] * 15)


def turned(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotates (B, T, heads, K) by complex numbers; feature i is paired with i + K/2."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] * theta ** -(torch.arange(half) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], dim=-1)


def nsa(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the card's equations, one query head and one query at a time, with lists of the tokens that it reads."""
    B, T, D = x.shape
    H, G, K, C = config.n_heads, config.n_kv_heads, D // config.n_heads, config.block_length
    places = torch.arange(T).float()
    q = turned((x @ weights["q.weight"].T).unflatten(-1, (H, K)), places, config.rope_theta)
    kv = (x @ weights["kv.weight"].T).unflatten(-1, (6, G, K)).unbind(2)
    k_chosen, k_window = (turned(k, places, config.rope_theta) for k in (kv[2], kv[4]))

    def compressed(of: Tensor, name: str) -> Tensor:
        blocks = []
        for m in range(T // C):
            tokens = of[:, m * C : (m + 1) * C] + weights[f"{name}.positions"][:, None]  # (B, C, G, K)
            flat = torch.cat([tokens[:, c] for c in range(C)], dim=-1)
            blocks.append(F.gelu(flat @ weights[f"{name}.up"].T) @ weights[f"{name}.down"].T)
        return torch.stack(blocks, dim=1)

    ends = torch.arange(C - 1, T, C)[: T // C].float()
    k_block = turned(compressed(kv[0], "compress_k"), ends, config.rope_theta)
    v_block = compressed(kv[1], "compress_v")
    gates = torch.sigmoid(x @ weights["gates.weight"].T + weights["gates.bias"]).unflatten(-1, (H, 3))

    def attend(b: int, t: int, h: int, k: Tensor, v: Tensor, read: list[int]) -> tuple[Tensor, Tensor]:
        g = h * G // H
        scores = k[b, read, g] @ q[b, t, h] / math.sqrt(K)
        return scores.softmax(0) @ v[b, read, g], scores.softmax(0)

    rows = []
    for b in range(B):
        for t in range(T):
            done, own = [m for m in range(T // C) if (m + 1) * C - 1 <= t], t // C
            forced = {0, max(0, own - 1), own}
            heads = []
            for h in range(H):
                group = [i for i in range(H) if i * G // H == h * G // H]
                weight = sum(attend(b, t, i, k_block, v_block, done)[1] for i in group) if done else torch.zeros(0)
                others = sorted((m for m in done if m not in forced), key=lambda m: -float(weight[m].detach()))
                blocks = forced | {*others[: config.top_blocks]}
                chosen = [s for s in range(t + 1) if s // C in blocks]
                first = attend(b, t, h, k_block, v_block, done)[0] if done else torch.zeros(K)
                second = attend(b, t, h, k_chosen, kv[3], chosen)[0]
                third = attend(b, t, h, k_window, kv[5], [*range(max(0, t + 1 - config.window), t + 1)])[0]
                heads.append(sum(gates[b, t, h, i] * y for i, y in enumerate((first, second, third))))
            rows.append(torch.cat(heads))
    return torch.stack(rows).view(B, T, D) @ weights["out.weight"].T


@pytest.mark.parametrize(
    ("n_kv_heads", "block_length", "top_blocks", "window"), [(2, 3, 1, 5), (4, 4, 2, 1), (1, 2, 2, 50)]
)
def test_sparse_nsa_logits_gradients_and_decoding_equal_the_equations(
    n_kv_heads: int, block_length: int, top_blocks: int, window: int
) -> None:
    assert_equals_reference(
        "sparse",
        lambda weights, idx, config: mixer_model(weights, idx, config, nsa),
        T=23,
        pattern="nsa",
        d_model=16,
        n_layers=2,
        n_heads=4,
        d_ff=20,
        context_length=16,
        n_kv_heads=n_kv_heads,
        block_length=block_length,
        top_blocks=top_blocks,
        window=window,
        rope_theta=50.0,
        norm_eps=1e-4,
    )


def test_sparse_pattern_names_the_mixers() -> None:
    model = lmzoo.create_model("sparse", vocab_size=13, pattern="nsa*2 dsa", n_layers=5)
    mixers = [type(block[0].inner) for block in model.blocks]
    assert mixers == [NSA, NSA, DSA, NSA, NSA]
    assert model.traits.chooses
    assert not lmzoo.create_model("deepseek", vocab_size=13).traits.chooses


def test_sparse_passes_its_options_to_the_mixers() -> None:
    sizes = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "block_length": 5, "top_blocks": 3, "window": 7}
    model = lmzoo.create_model("sparse", vocab_size=13, pattern="dsa nsa", rope_theta=7.0, norm_eps=1e-3, **sizes)
    dsa, nsa = (block[0].inner for block in list(model.blocks)[:2])
    assert (dsa.rope.theta, dsa.kv_norm.eps, dsa.index_norm.eps) == (7.0, 1e-3, 1e-6)
    assert (nsa.rope.theta, nsa.n_kv_heads, nsa.block_length, nsa.top_blocks, nsa.window) == (7.0, 2, 5, 3, 7)


def test_sparse_state_holds_all_tokens_compressed_blocks_and_a_window() -> None:
    sizes = {"d_model": 32, "n_layers": 1, "n_heads": 4}
    dsa = lmzoo.create_model("sparse", vocab_size=13, kv_rank=12, rope_dim=6, index_dim=10, **sizes)
    assert dsa.state_bytes(50) == 4 * 50 * (12 + 6 + 10)
    nsa = lmzoo.create_model("sparse", vocab_size=13, pattern="nsa", n_kv_heads=2, block_length=8, window=20, **sizes)
    assert nsa.state_bytes(50) == 4 * 2 * 2 * 8 * (50 + 20 + 8 + 50 // 8)


def test_sparse_costs_of_attention_stop_growing_except_for_the_choice() -> None:
    """Per token, dsa adds the indexer's scores, 2 I (J + 1) per key, and nsa two products per block."""
    sizes = {"d_model": 32, "n_layers": 1, "n_heads": 4}
    dsa = lmzoo.create_model("sparse", vocab_size=13, index_heads=2, index_dim=20, top_keys=9, **sizes)
    assert dsa.flops_per_token(1000) - dsa.flops_per_token(500) == 2 * 2 * 21 * 500
    nsa = lmzoo.create_model("sparse", vocab_size=13, pattern="nsa", block_length=10, **sizes)
    assert nsa.flops_per_token(1000) - nsa.flops_per_token(500) == pytest.approx(4 * 32 * 50)


def test_sparse_trains_the_indexer_by_its_auxiliary_loss_alone() -> None:
    model = lmzoo.create_model("sparse", **OURS, generator=torch.Generator().manual_seed(0)).train()
    idx = random_tokens(61, 4, 17)
    with losses.collect_auxiliary(True) as named:
        x, _ = model.features(idx[:, :-1])
    assert named.keys() == {"index"}
    assert named["index"] > 0
    parameters = dict(model.named_parameters())
    for loss, of_indexer in ((named["index"], True), (model.head(x).square().mean(), False)):
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            assert (gradient is not None and bool(gradient.any())) == ((".index_" in name) == of_indexer), name


def test_sparse_indexer_learns_to_follow_the_attention() -> None:
    model = lmzoo.create_model("sparse", **{**OURS, "top_keys": 8}, generator=torch.Generator().manual_seed(0)).train()
    perturb(model).train()
    indexer = [parameter for name, parameter in model.named_parameters() if ".index_" in name]
    idx, found = random_tokens(61, 4, 30), list[float]()
    optimizer = torch.optim.Adam(indexer, lr=0.01)
    for _ in range(60):
        with losses.collect_auxiliary(True) as named:
            model.features(idx)
        found.append(named["index"].item())
        optimizer.zero_grad()
        named["index"].backward()
        optimizer.step()
    assert found[-1] < 0.5 * found[0]


@pytest.mark.parametrize(("preset", "size", "error"), [("1m", 1e6, 0.05), ("nsa-1m", 1e6, 0.05), ("10m", 1e7, 0.02)])
def test_sparse_presets_have_the_size_of_their_names(preset: str, size: float, error: float) -> None:
    with torch.device("meta"):
        assert abs(lmzoo.create_model(f"sparse.{preset}", vocab_size=256).num_params() / size - 1) < error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "dsa mamba"}, "pattern='dsa mamba': 'mamba' must be one of dsa, nsa"),
        ({"rope_dim": 5}, "rope_dim=5 must be even to be rotated"),
        ({"index_dim": 4}, "index_dim=4 must be at least rope_dim=6"),
        ({"top_keys": 0}, "top_keys=0 must be"),
        ({"block_length": 0}, "block_length=0 must be"),
    ],
)
def test_sparse_config_refuses_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lmzoo.create_model("sparse", **{**OURS, **settings})
