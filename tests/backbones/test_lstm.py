"""The LSTM compared with torch.nn.LSTM, with weights copied in both directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.decoder import DecoderState
from lmzoo.layers.lstm import LSTMState
from tests.backbones.against_transformers import perturb, random_tokens

SIZES = {"vocab_size": 13, "context_length": 16, "d_model": 10, "n_layers": 3}


def copy_to_torch(model: lmzoo.LanguageModel) -> nn.LSTM:
    theirs = nn.LSTM(10, 10, num_layers=3, batch_first=True)
    weights = model.state_dict()
    with torch.no_grad():
        for i in range(3):
            getattr(theirs, f"weight_ih_l{i}").copy_(weights[f"blocks.{i}.0.weight_ih"])
            getattr(theirs, f"weight_hh_l{i}").copy_(weights[f"blocks.{i}.0.weight_hh"])
            getattr(theirs, f"bias_ih_l{i}").copy_(weights[f"blocks.{i}.0.bias"])
            getattr(theirs, f"bias_hh_l{i}").zero_()
    return theirs


def copy_from_torch(theirs: nn.LSTM, model: lmzoo.LanguageModel) -> None:
    weights = model.state_dict()
    for i in range(3):
        weights[f"blocks.{i}.0.weight_ih"] = getattr(theirs, f"weight_ih_l{i}")
        weights[f"blocks.{i}.0.weight_hh"] = getattr(theirs, f"weight_hh_l{i}")
        weights[f"blocks.{i}.0.bias"] = getattr(theirs, f"bias_ih_l{i}") + getattr(theirs, f"bias_hh_l{i}")
    model.load_state_dict(weights, strict=True)


def embedded(model: lmzoo.LanguageModel, idx: Tensor) -> Tensor:
    return model.get_parameter("tokens.weight")[idx]


def test_lstm_features_equal_torch_with_our_weights() -> None:
    ours = perturb(lmzoo.create_model("lstm", **SIZES))
    idx = random_tokens(13, 2, 9)
    with torch.no_grad():
        expected, _ = copy_to_torch(ours)(embedded(ours, idx))
        torch.testing.assert_close(ours.features(idx)[0], expected, atol=1e-5, rtol=0)


def test_lstm_logits_and_gradients_equal_torch() -> None:
    ours, idx = perturb(lmzoo.create_model("lstm", **SIZES)), random_tokens(13, 2, 12)
    theirs = copy_to_torch(ours)
    logits, expected = ours(idx).logits, ours.head(theirs(embedded(ours, idx))[0])
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for i in range(3):
        for name, other in {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias": "bias_ih"}.items():
            got, want = getattr(ours.blocks[i][0], name).grad, getattr(theirs, f"{other}_l{i}").grad
            torch.testing.assert_close(got, want, atol=1e-4 * want.abs().max().item(), rtol=0)


def test_lstm_features_equal_torch_with_its_weights_from_a_given_state() -> None:
    theirs = perturb(nn.LSTM(10, 10, num_layers=3, batch_first=True), seed=3)
    ours = lmzoo.create_model("lstm", **SIZES).eval()
    copy_from_torch(theirs, ours)
    idx = random_tokens(13, 2, 9)
    h, c = torch.randn(2, 3, 2, 10, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected, (h_1, c_1) = theirs(embedded(ours, idx), (h, c))
        x_BTD, state = ours.features(idx, DecoderState(0, [[LSTMState(h[i], c[i]), None] for i in range(3)]))
    torch.testing.assert_close(x_BTD, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack([cells.h for cells, _ in state.blocks]), h_1, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack([cells.c for cells, _ in state.blocks]), c_1, atol=1e-5, rtol=0)


def test_lstm_decoding_steps_equal_torch() -> None:
    ours = perturb(lmzoo.create_model("lstm", **SIZES))
    idx = random_tokens(13, 2, 7)
    with torch.no_grad():
        expected = ours.head(copy_to_torch(ours)(embedded(ours, idx))[0])
    state = ours.init_state(2)
    for t in range(7):
        logits_BV, state = ours.decode(idx[:, t : t + 1], state)
        torch.testing.assert_close(logits_BV, expected[:, t], atol=1e-5, rtol=0)


def test_lstm_initialization_has_the_documented_distributions() -> None:
    model = lmzoo.create_model("lstm", vocab_size=13, d_model=64, generator=torch.Generator().manual_seed(0))
    for name, weight in model.named_parameters():
        if "weight_" in name:
            assert weight.abs().max() <= 1 / 8
            assert abs(weight.std().item() * 8 * 3**0.5 - 1) < 0.03  # a uniform's spread is its bound / sqrt(3)
        if name.endswith("bias"):
            assert (weight[64:128] == 1).all(), "the forget gate begins open"
            assert weight[:64].abs().max() <= 1 / 8
    assert abs(model.get_parameter("tokens.weight").std().item() - 1) < 0.1


def test_lstm_dropout_is_between_layers_and_not_through_time() -> None:
    """With a dropout rate near 1 the features are zero, while the recurrent state still changes."""
    model = lmzoo.create_model("lstm", **{**SIZES, "dropout": 0.999999}).train()
    idx = random_tokens(13, 2, 5)
    x_BTD, state = model.features(idx, model.init_layers(2, 5, torch.empty(0)))
    assert (x_BTD == 0).all()
    assert all((cells.h != 0).all() for cells, _ in state.blocks)
