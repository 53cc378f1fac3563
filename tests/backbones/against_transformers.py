"""Helpers of the tests that compare a backbone with the same model in Hugging Face transformers."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads: the references are built from small configurations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.hf.weights import Weights, convert

TOLERANCE = 1e-4  # float32, on logits of order 1 to 10


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Perturbs every weight, because initial values of 1 (norm weights) or 0 (biases) can hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else 1.0 / parameter.shape[-1] ** 0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def random_tokens(vocab_size: int, batch_size: int, T: int, seed: int = 1) -> Tensor:
    """Returns random ids (batch_size, T)."""
    return torch.randint(vocab_size, (batch_size, T), generator=torch.Generator().manual_seed(seed))


def ours_with_weights_of(theirs: nn.Module, name: str, weights: Weights, **settings: Any) -> lmzoo.LanguageModel:
    """Returns the model `name` with the weights of `theirs`, converted by the map `weights`."""
    model = lmzoo.create_model(name, **settings)
    model.load_state_dict(convert(theirs.state_dict(), weights, to_dict(model.config)), strict=True)
    return model.eval()


def assert_decoding_equals(model: lmzoo.LanguageModel, idx: Tensor, expected: Tensor, lengths: Sequence[int]) -> None:
    """Decodes idx (B, T) in pieces of these lengths; after each, compares the logits with `expected` (B, T, V)."""
    assert sum(lengths) == idx.shape[1]
    state, t = model.init_state(*idx.shape), 0
    for length in lengths:
        logits_BV, state = model.decode(idx[:, t : t + length], state)
        t += length
        torch.testing.assert_close(logits_BV, expected[:, t - 1], atol=TOLERANCE, rtol=0)


def assert_gradients_equal(ours: lmzoo.LanguageModel, theirs: nn.Module, weights: Weights, idx: Tensor) -> None:
    """Compares the gradients of the mean square of all logits, each to `TOLERANCE` of its largest element.

    The map `weights` also converts gradients, because a layout moves elements without changing them.
    """
    for model in (ours, theirs):
        model.zero_grad()
        model(idx).logits.square().mean().backward()
    found = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    expected = convert(found, weights, to_dict(ours.config))
    trained = {name: parameter for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert trained.keys() == expected.keys()
    for name, parameter in trained.items():
        scale = max(1e-3, expected[name].abs().max().item())
        torch.testing.assert_close(parameter.grad, expected[name], atol=TOLERANCE * scale, rtol=0)
