"""Mixtral and its balance loss compared with transformers' MixtralForCausalLM with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import lmzoo
from lmzoo import losses
from lmzoo.hf.mixtral import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

SETTINGS = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "d_ff": 24, "n_experts": 4, "top_k": 2}


def make_pair(n_layers: int, window: int | None) -> tuple[lmzoo.LanguageModel, MixtralForCausalLM]:
    config = MixtralConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=window,
        rope_theta=100.0,
        output_router_logits=True,
    )
    theirs = perturb(MixtralForCausalLM(config))
    shape = {"vocab_size": 61, "context_length": 16, "n_layers": n_layers, "window": window, "rope_theta": 100.0}
    return ours_with_weights_of(theirs, "mixtral", WEIGHTS, **shape, **SETTINGS), theirs


@pytest.mark.parametrize("window", [None, 7])
def test_mixtral_logits_and_gradients_equal_transformers(window: int | None) -> None:
    """Covers several KV heads, every expert, and a sequence longer than window and context."""
    ours, theirs = make_pair(3, window)
    idx = random_tokens(61, 3, 40)
    with torch.no_grad():
        found = theirs(idx)
    expected = found.logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    for router_logits in found.router_logits:
        assert router_logits.topk(2).indices.unique().tolist() == [0, 1, 2, 3], "every expert must be used"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [17] + [1] * 23)
    assert_gradients_equal(ours, theirs, WEIGHTS, idx)


def test_mixtral_balance_loss_equals_transformers() -> None:
    """Compares one layer, because lmzoo computes the loss per layer and transformers over all layers."""
    ours, theirs = make_pair(1, None)
    idx = random_tokens(61, 3, 40)
    with torch.no_grad():
        expected = load_balancing_loss_func(theirs(idx).router_logits, num_experts=4, top_k=2)
        with losses.collect_auxiliary(True) as named:
            ours.train().features(idx)
    torch.testing.assert_close(named["balance"], 0.02 * expected, atol=1e-6, rtol=0)


def test_mixtral_8x7b_has_the_published_numbers_of_parameters() -> None:
    model = lmzoo.create_model("mixtral.8x7b", device="meta")
    assert model.num_params() == 46_702_792_704
    assert round(model.num_params(active=True) / 1e9, 1) == 12.9


def test_gpt_oss_20b_has_the_published_numbers_of_parameters() -> None:
    model = lmzoo.create_model("mixtral.gpt-oss-20b", device="meta")
    assert round(model.num_params() / 1e9, 2) == 20.91
    embedding = model.tokens.weight.numel()  # the published figure leaves out the embedding, not the head
    assert round((model.num_params(active=True) - embedding) / 1e9, 2) == 3.61


def test_mixtral_trains_with_either_balance() -> None:
    idx = random_tokens(61, 4, 17)
    for settings in ({}, {"balance_loss": 0.0, "balance_bias": True}):
        generator = torch.Generator().manual_seed(0)
        model = lmzoo.create_model("mixtral", vocab_size=61, n_layers=2, generator=generator, **SETTINGS, **settings)
        logits, loss = model.train()(idx[:, :-1], idx[:, 1:])
        torch.testing.assert_close(loss, losses.cross_entropy(logits, idx[:, 1:]))  # balance is not part of it
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
