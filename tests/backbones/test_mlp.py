"""The windowed MLP compared with the equation of its paper, evaluated one position at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lmzoo
from tests.backbones.against_transformers import perturb, random_tokens

SIZES = {"vocab_size": 11, "context_length": 16, "d_model": 5, "d_ff": 7, "window": 4}


def by_the_equation(model: lmzoo.LanguageModel, idx_BT: Tensor, direct: bool) -> Tensor:
    weights = dict(model.named_parameters())
    H, d, b = weights["hidden.weight"], weights["hidden.bias"], weights["head.bias"]
    U, W = weights["head.weight"][:, :7], weights["head.weight"][:, 7:]
    logits = []
    for row in range(idx_BT.shape[0]):
        for t in range(idx_BT.shape[1]):
            window = [int(idx_BT[row, s]) if s >= 0 else 11 for s in range(t - 3, t + 1)]  # 11: the padding's row
            x = torch.cat([weights["tokens.weight"][token] for token in window])
            y = b + U @ torch.tanh(d + H @ x)
            logits.append(y + W @ x if direct else y)
    return torch.stack(logits).view(*idx_BT.shape, 11)


@pytest.mark.parametrize("direct", [False, True])
def test_mlp_logits_and_gradients_equal_the_equation(direct: bool) -> None:
    model = perturb(lmzoo.create_model("mlp", direct=direct, **SIZES))
    idx = random_tokens(11, 2, 9)
    logits, expected = model(idx).logits, by_the_equation(model, idx, direct)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    parameters = list(model.parameters())
    got, want = (torch.autograd.grad(found.square().mean(), parameters) for found in (logits, expected))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.abs().max().item(), rtol=0)


def test_mlp_sees_only_its_window() -> None:
    model = perturb(lmzoo.create_model("mlp", **SIZES))
    idx = random_tokens(11, 1, 9)
    changed = idx.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 11
    with torch.no_grad():
        moved = (model(idx).logits - model(changed).logits).abs().amax(-1)[0] > 0
    assert moved.tolist() == [2 <= t < 6 for t in range(9)]


@pytest.mark.parametrize("window", [1, 4])
def test_mlp_decoding_steps_equal_forward(window: int) -> None:
    model = perturb(lmzoo.create_model("mlp", **{**SIZES, "window": window}))
    idx = random_tokens(11, 2, 8)
    state = model.init_state(2)
    steps = []
    for t in range(8):
        logits_BV, state = model.decode(idx[:, t : t + 1], state)
        steps.append(logits_BV)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(steps, dim=1), model(idx).logits, atol=1e-5, rtol=0)
