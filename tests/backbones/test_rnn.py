"""The simple recurrent network compared with torch.nn.RNN, with weights copied in both directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.decoder import DecoderState
from tests.backbones.against_transformers import assert_decoding_equals, perturb, random_tokens

SIZES = {"vocab_size": 13, "context_length": 16, "d_model": 10, "n_layers": 3}
NAMES = {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias": "bias_ih"}


def copy_to_torch(model: lmzoo.LanguageModel) -> nn.RNN:
    theirs, weights = nn.RNN(10, 10, num_layers=3, batch_first=True), model.state_dict()
    with torch.no_grad():
        for i in range(3):
            for ours, name in NAMES.items():
                getattr(theirs, f"{name}_l{i}").copy_(weights[f"blocks.{i}.0.{ours}"])
            getattr(theirs, f"bias_hh_l{i}").zero_()
    return theirs


def embedded(model: lmzoo.LanguageModel, idx: Tensor) -> Tensor:
    return model.get_parameter("tokens.weight")[idx]


def test_rnn_logits_and_gradients_equal_torch() -> None:
    ours, idx = perturb(lmzoo.create_model("rnn", **SIZES)), random_tokens(13, 2, 12)
    theirs = copy_to_torch(ours)
    logits, expected = ours(idx).logits, ours.head(theirs(embedded(ours, idx))[0])
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for i in range(3):
        cells = ours.blocks[i][0]
        pairs = [(getattr(cells, name), getattr(theirs, f"{other}_l{i}").grad) for name, other in NAMES.items()]
        for parameter, want in pairs:
            torch.testing.assert_close(parameter.grad, want, atol=1e-4 * want.abs().max().item(), rtol=0)


def test_rnn_features_equal_torch_with_its_weights_from_a_given_state() -> None:
    theirs = perturb(nn.RNN(10, 10, num_layers=3, batch_first=True), seed=3)
    ours = lmzoo.create_model("rnn", **SIZES).eval()
    weights = ours.state_dict()
    for i in range(3):
        weights |= {f"blocks.{i}.0.{name}": getattr(theirs, f"{name}_l{i}") for name in ("weight_ih", "weight_hh")}
        weights[f"blocks.{i}.0.bias"] = getattr(theirs, f"bias_ih_l{i}") + getattr(theirs, f"bias_hh_l{i}")
    ours.load_state_dict(weights, strict=True)
    idx, h = random_tokens(13, 2, 9), torch.randn(3, 2, 10, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected, last = theirs(embedded(ours, idx), h)
        x_BTD, state = ours.features(idx, DecoderState(0, [[h[i], None] for i in range(3)]))
    torch.testing.assert_close(x_BTD, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack([h_BD for h_BD, _ in state.blocks]), last, atol=1e-5, rtol=0)


def test_rnn_decoding_equals_torch() -> None:
    ours, idx = perturb(lmzoo.create_model("rnn", **SIZES)), random_tokens(13, 2, 8)
    with torch.no_grad():
        expected = ours.head(copy_to_torch(ours)(embedded(ours, idx))[0])
    assert_decoding_equals(ours, idx, expected, (1, 1, 5, 1))


def test_rnn_state_is_one_vector_per_layer() -> None:
    model = lmzoo.create_model("rnn", **SIZES)
    assert model.state_bytes(3) == model.state_bytes(1000) == 4 * 3 * 10


def test_rnn_dropout_is_between_layers_and_not_through_time() -> None:
    """With a dropout rate near 1 the features are zero, while the recurrent state still changes."""
    model = lmzoo.create_model("rnn", **{**SIZES, "dropout": 0.999999}).train()
    x_BTD, state = model.features(random_tokens(13, 2, 5), model.init_layers(2, 5, torch.empty(0)))
    assert (x_BTD == 0).all()
    assert all((h_BD != 0).all() for h_BD, _ in state.blocks)
