"""xLSTM compared with the authors' package `xlstm` (plain torch) with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from xlstm import (
    FeedForwardConfig,
    mLSTMBlockConfig,
    mLSTMLayerConfig,
    sLSTMBlockConfig,
    sLSTMLayerConfig,
    xLSTMLMModel,
    xLSTMLMModelConfig,
)

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.xlstm import MLSTM, SLSTM
from tests.backbones.against_transformers import TOLERANCE, assert_decoding_equals, perturb, random_tokens

MODEL = {"token_embedding": "tokens", "xlstm_block_stack.post_blocks_norm": "norm", "lm_head": "head"}
PARTS = {
    "xlstm_norm": "0.before",
    "ffn_norm": "1.before",
    "ffn.proj_up": "1.inner.up",
    "ffn.proj_down": "1.inner.down",
    "xlstm.proj_up": "0.inner.up",
    "xlstm.proj_down": "0.inner.down",
    "xlstm.q_proj": "0.inner.q",
    "xlstm.k_proj": "0.inner.k",
    "xlstm.v_proj": "0.inner.v",
    "xlstm.conv1d.conv": "0.inner.conv",
    "xlstm.mlstm_cell.outnorm": "0.inner.norm",
    "xlstm.group_norm": "0.inner.norm",
    "xlstm.fgate": "0.inner.i",  # the package's names of these two are exchanged
    "xlstm.igate": "0.inner.f",
    "xlstm.zgate": "0.inner.z",
    "xlstm.ogate": "0.inner.o",
}
PARAMETERS = {
    "xlstm.learnable_skip": "0.inner.skip",
    "xlstm.slstm_cell._recurrent_kernel_": "0.inner.recurrent",
    "xlstm.slstm_cell._bias_": "0.inner.gate_bias",
}


def in_our_names(theirs: dict[str, Tensor], n_heads: int, *, shift: float) -> dict[str, Tensor]:
    """Returns weights or gradients under our names; `shift` is added to norm weights, stored as differences to 1."""
    found: dict[str, Tensor] = {}
    for name, value in theirs.items():
        path, _, kind = name.rpartition(".")
        if path in MODEL:
            found[f"{MODEL[path]}.{kind}"] = value + shift if MODEL[path] == "norm" else value
            continue
        _, _, i, part = name.split(".", 3)
        path = part.rpartition(".")[0]
        ours = PARAMETERS.get(part, f"{PARTS.get(path)}.{kind}")
        if "norm" in part:
            value = value + shift
        elif ours.endswith("conv.weight"):
            value = value.squeeze(1)
        elif part.endswith("_bias_"):
            value = value.view(4, n_heads, -1).transpose(0, 1).flatten(1)
        if "mlstm_cell" not in part or "outnorm" in part:
            found[f"blocks.{i}.{ours}"] = value
        elif "igate" in part:
            gates = torch.cat([value, theirs[name.replace("igate", "fgate")]])
            found[f"blocks.{i}.0.inner.{'gates.weight' if kind == 'weight' else 'gate_bias'}"] = gates
    return found


def make_pair() -> tuple[lmzoo.LanguageModel, xLSTMLMModel]:
    sizes = {"d_model": 32, "n_layers": 3, "n_heads": 2, "d_ff": 64, "d_conv": 3, "qkv_block": 8}
    mlstm = mLSTMLayerConfig(conv1d_kernel_size=3, qkv_proj_blocksize=8, num_heads=2, proj_factor=2.0)
    slstm = sLSTMLayerConfig(backend="vanilla", num_heads=2, conv1d_kernel_size=3, dtype="float32")
    feed_forward = FeedForwardConfig(proj_factor=2.0, act_fn="gelu")
    config = xLSTMLMModelConfig(
        mlstm_block=mLSTMBlockConfig(mlstm=mlstm),
        slstm_block=sLSTMBlockConfig(slstm=slstm, feedforward=feed_forward),
        context_length=64,
        num_blocks=3,
        embedding_dim=32,
        slstm_at=[1],
        vocab_size=61,
    )
    theirs = perturb(xLSTMLMModel(config))
    ours = lmzoo.create_model("xlstm", vocab_size=61, context_length=16, pattern="mlstm slstm mlstm", **sizes)
    ours.load_state_dict(in_our_names(theirs.state_dict(), 2, shift=1.0), strict=True)
    return ours.eval(), theirs


def test_xlstm_logits_equal_the_authors_package() -> None:
    """Longer than a chunk; forward and decoding in pieces."""
    ours, theirs = make_pair()
    idx = random_tokens(61, 3, 50)
    with torch.no_grad():
        expected = theirs(idx)
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [35, 1, 3] + [1] * 11)


def test_xlstm_gradients_equal_the_authors_package() -> None:
    ours, theirs = make_pair()
    idx = random_tokens(61, 2, 40)
    F.cross_entropy(theirs(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten()).backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = in_our_names(grads, 2, shift=0.0)
    for name, parameter in ours.named_parameters():
        want = expected[name]
        torch.testing.assert_close(parameter.grad, want, atol=1e-4 * max(1.0, want.abs().max().item()), rtol=0)


def test_xlstm_passes_its_options_to_the_layers() -> None:
    options = {"pattern": "slstm mlstm", "n_heads": 2, "expand": 3, "d_conv": 3, "qkv_block": 8, "d_ff": 24}
    (cells, feed_forward), (matrix,) = lmzoo.create_model(
        "xlstm", vocab_size=13, d_model=32, n_layers=2, **options
    ).blocks
    assert isinstance(cells.inner, SLSTM)
    assert isinstance(matrix.inner, MLSTM)
    assert cells.inner.recurrent.shape == (2, 4 * 16, 16)
    assert feed_forward.inner.d_ff == 24
    assert matrix.inner.q.weight.shape == (96 // 8, 8, 8)
    assert {cells.inner.conv.reach, matrix.inner.conv.reach} == {3}


def test_xlstm_config_refuses_blocks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"qkv_block=5 must divide expand \* d_model = 64"):
        lmzoo.create_model("xlstm", vocab_size=13, d_model=32, qkv_block=5)


def test_xlstm_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("xlstm", vocab_size=13, d_model=32, n_layers=2, n_heads=4, pattern="mlstm slstm")
    matrix, scalar = 3 * 64 + 4 * 16 * 17 + 4, 3 * 32 + 4 * 32
    assert model.state_bytes(10) == model.state_bytes(1000) == 4 * (matrix + scalar)
    assert model.traits.state_growth == "constant"


def test_xlstm_initialization_follows_the_authors() -> None:
    sizes = {"vocab_size": 512, "d_model": 256, "n_layers": 4}
    weights = lmzoo.create_model("xlstm", **sizes, generator=torch.Generator().manual_seed(0)).state_dict()
    small, residual = math.sqrt(2 / (5 * 256)), 2 / (4 * 16)
    stds = {"tokens": small, "head": small, "blocks.0.0.inner.up": small, "blocks.0.0.inner.down": residual}
    for name, std in stds.items():
        assert abs(weights[f"{name}.weight"].std().item() / std - 1) < 0.03, name
    torch.testing.assert_close(weights["blocks.1.0.inner.gate_bias"][4:], torch.tensor([3.0, 4.0, 5.0, 6.0]))
    forget_HK = weights["blocks.3.0.inner.gate_bias"].chunk(4, dim=-1)[1]
    torch.testing.assert_close(forget_HK, (5 - 12 * (torch.arange(64) / 63) ** 1.6).expand(4, 64))
    assert (weights["blocks.3.0.inner.recurrent"] == 0).all()


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_xlstm_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"xlstm.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within
