"""WaveNet compared with the same network of torch's convolutions with left padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import lmzoo
from tests.backbones.against_transformers import perturb, random_tokens

SIZES = {"vocab_size": 13, "d_model": 6, "d_skip": 10, "n_layers": 5, "d_conv": 3, "cycle": 3}


def by_convolutions(model: lmzoo.LanguageModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits, computed by the equations of the card with `F.conv1d`, channels before time."""
    p, D, S = dict(model.named_parameters()), 6, 10
    x_BDT, s_BST = p["tokens.weight"][idx_BT].transpose(1, 2), 0
    for i in range(5):
        weight_EDW = rearrange(p[f"blocks.{i}.0.conv.weight"], "e (w d) -> e d w", w=3)
        dilation = [1, 2, 4][i % 3]
        conv = F.conv1d(F.pad(x_BDT, (2 * dilation, 0)), weight_EDW, p[f"blocks.{i}.0.conv.bias"], dilation=dilation)
        z_BDT = torch.tanh(conv[:, :D]) * torch.sigmoid(conv[:, D:])
        out = F.conv1d(z_BDT, p[f"blocks.{i}.0.out.weight"][..., None], p[f"blocks.{i}.0.out.bias"])
        s_BST = s_BST + out[:, :S]
        x_BDT = x_BDT + out[:, S:] if i < 4 else x_BDT
    y_BST = F.relu(F.conv1d(F.relu(s_BST), p["mix.weight"][..., None], p["mix.bias"]))
    return F.conv1d(y_BST, p["head.weight"][..., None], p["head.bias"]).transpose(1, 2)


def test_cnn_logits_and_gradients_equal_torchs_convolutions() -> None:
    model, idx = perturb(lmzoo.create_model("cnn", **SIZES)), random_tokens(13, 2, 40)
    ours, theirs = model(idx).logits, by_convolutions(model, idx)
    torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=0)
    parameters = list(model.parameters())
    got, want = (torch.autograd.grad(logits.square().mean(), parameters) for logits in (ours, theirs))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.abs().max().item(), rtol=0)


def test_cnn_sees_only_the_sum_of_its_dilations() -> None:
    model = perturb(lmzoo.create_model("cnn", **SIZES))
    assert model.traits.receptive_field == 1 + 2 * (1 + 2 + 4 + 1 + 2)
    idx = random_tokens(13, 1, 40)
    changed = idx.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 13
    with torch.no_grad():
        moved = (model(idx).logits - model(changed).logits).abs().amax(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == list(range(10, 31))


def test_cnn_state_is_the_inputs_of_its_reach() -> None:
    model = lmzoo.create_model("cnn", **SIZES)
    assert model.state_bytes(3) == model.state_bytes(1000) == 4 * 6 * (model.traits.receptive_field - 1)
    assert model.traits.state_growth == "constant"
