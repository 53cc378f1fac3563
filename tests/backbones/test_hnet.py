"""H-Net compared with its equations, one row after another, with Mamba-2 as a matrix of all pairs of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.stack import Residual
from tests.backbones.references import Weights, assert_equals_reference, rms

SIZES = {"d_model": 24, "n_layers": 3, "n_main": 2, "d_ff": 20, "d_state": 5, "head_dim": 8, "context_length": 16}


def part(weights: Weights, start: str) -> Weights:
    """Returns the weights whose names begin with `start`, without it."""
    return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}


def mamba2(weights: Weights, x_TD: Tensor, config: Any) -> Tensor:
    """Computes x + mixer(norm(x)) with decays between all pairs of tokens."""
    E, N, P = 2 * config.d_model, config.d_state, config.head_dim
    h = rms(x_TD, weights["before.weight"], config.norm_eps) @ weights["inner.in_proj.weight"].T
    z, mixed, dt = h.split([E, E + 2 * N, E // P], dim=-1)
    taps = weights["inner.conv.weight"]
    mixed = F.conv1d(F.pad(mixed.T, (taps.shape[1] - 1, 0))[None], taps[:, None], groups=len(taps))[0].T
    u, B, C = F.silu(mixed + weights["inner.conv.bias"]).split([E, N, N], dim=-1)
    u, step = u.unflatten(-1, (-1, P)), F.softplus(dt + weights["inner.dt_bias"])
    sums = (-step * weights["inner.A_log"].exp()).cumsum(0)
    decay = (sums[:, None] - sums[None]).exp()
    pairs = (C @ B.T)[..., None] * decay * torch.ones(len(h), len(h)).tril()[..., None]
    y = torch.einsum("tsh,sh,shp->thp", pairs, step, u) + weights["inner.D"][:, None] * u
    y = rms(y.flatten(1) * F.silu(z), weights["inner.norm_weight"], config.norm_eps)
    return x_TD + y @ weights["inner.out_proj.weight"].T


def swiglu(weights: Weights, x_TD: Tensor, config: Any) -> Tensor:
    """Computes x + mlp(norm(x))."""
    gate, up = (rms(x_TD, weights["before.weight"], config.norm_eps) @ weights["inner.up.weight"].T).chunk(2, dim=-1)
    return x_TD + (F.silu(gate) * up) @ weights["inner.down.weight"].T


def chunked(weights: Weights, x_TD: Tensor, config: Any) -> Tensor:
    """Computes the main network on the chunks of one row, and what each token gets of it."""
    weights = part(weights, "0.")
    x_TD = rms(x_TD, weights["before.weight"], config.norm_eps)
    q, k = x_TD @ weights["q.weight"].T, x_TD @ weights["k.weight"].T
    p_T = torch.cat([torch.ones(1), 0.5 - F.cosine_similarity(q[1:], k[:-1], dim=-1) / 2])
    starts = [t for t, p in enumerate(p_T.tolist()) if p >= 0.5]
    assert 3 < len(starts) < len(x_TD) - 3, "chunks must have different lengths"
    y = x_TD[starts]
    for i in range(config.n_main):
        y = mamba2(part(weights, f"main.{2 * i}."), y, config)
        y = swiglu(part(weights, f"main.{2 * i + 1}."), y, config)
    y = rms(y, weights[f"main.{2 * config.n_main}.weight"], config.norm_eps)
    smoothed = [y[0]]
    for m, t in enumerate(starts[1:], start=1):
        smoothed.append(torch.lerp(smoothed[-1], y[m], p_T[t]))
    ends = [*starts[1:], len(x_TD)]
    lengths = torch.tensor([end - start for start, end in zip(starts, ends, strict=True)])
    return x_TD @ weights["direct.weight"].T + torch.stack(smoothed).repeat_interleave(lengths, dim=0)


def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits, one row after another."""
    rows = []
    for idx_T in idx:
        x_TD = weights["tokens.weight"][idx_T]
        for layer, compute in enumerate((mamba2, chunked, mamba2)):
            x_TD = compute(part(weights, f"blocks.{layer}."), x_TD, config)
        rows.append(rms(x_TD, weights["norm.weight"], config.norm_eps) @ weights["head.weight"].T)
    return torch.stack(rows)


def test_hnet_logits_gradients_and_decoding_equal_the_reference() -> None:
    assert_equals_reference("hnet", reference, T=40, d_conv=3, norm_eps=1e-3, **SIZES)


@pytest.mark.parametrize(("n_layers", "kinds"), [(1, "c"), (2, "mc"), (3, "mcm"), (4, "mmcm"), (5, "mmcmm")])
def test_hnet_holds_the_main_network_in_the_middle(n_layers: int, kinds: str) -> None:
    model = lmzoo.create_model("hnet", vocab_size=13, **{**SIZES, "n_layers": n_layers})
    assert "".join("m" if isinstance(block, Residual) else "c" for block in model.blocks) == kinds


def test_hnet_passes_its_options_to_the_layers() -> None:
    model = lmzoo.create_model("hnet", vocab_size=13, chunk_length=3.0, ratio_loss=0.2, d_conv=2, **SIZES)
    (chunks,) = model.blocks[1]
    assert (chunks.chunk_length, chunks.ratio_loss, len(chunks.main)) == (3.0, 0.2, 2 * 2 + 1)
    mixer, feed_forward = chunks.main[0].inner, chunks.main[1].inner
    assert (mixer.d_state, mixer.head_dim, mixer.conv.reach, feed_forward.d_ff) == (5, 8, 2, 20)


def test_hnet_counts_the_main_network_once_per_chunk() -> None:
    short, long = (lmzoo.create_model("hnet", vocab_size=13, chunk_length=length, **SIZES) for length in (2.0, 8.0))
    main = sum(p.numel() for p in short.blocks[1][0].main.parameters())
    assert short.flops_per_token(16) > long.flops_per_token(16)
    assert short.num_params(active=True) == short.num_params() - round(main / 2)


def test_hnet_config_refuses_chunks_of_one_token() -> None:
    with pytest.raises(ConfigError, match=r"chunk_length=1.0 must be more than 1"):
        lmzoo.create_model("hnet", vocab_size=13, chunk_length=1.0)
    with pytest.raises(ConfigError, match=r"head_dim=24 must divide 2 \* d_model = 64"):
        lmzoo.create_model("hnet", vocab_size=13, d_model=32, head_dim=24)


def test_hnet_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("hnet", vocab_size=13, **SIZES)
    mamba = 3 * (48 + 2 * 5) + 48 * 5
    assert model.state_bytes(10) == model.state_bytes(1000) == 4 * (4 * mamba + 2 * 24)
    assert model.traits.data_dependent_shapes
