"""Helpers of the tests that compare a backbone, its gradients too, with a reference: transformers or a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.hf import weights as hf
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

Weights = Mapping[str, Tensor]


def assert_equals_reference(
    name: str, reference: Callable[[Weights, Tensor, Any], Tensor], *, T: int, **settings: Any
) -> None:
    """Compares logits, gradients and decoding of a perturbed model with `reference(weights, idx, config) -> logits`.

    Logits agree within `TOLERANCE` of the largest, and the gradients of the loss within `TOLERANCE` of the largest of
    each parameter, in float32.
    """
    model = lmzoo.create_model(name, vocab_size=61, **settings)
    perturb(model)
    idx, targets = random_tokens(61, 2, T), random_tokens(61, 2, T, seed=2)
    weights = {key: value.detach().clone().requires_grad_() for key, value in model.named_parameters()}
    expected = reference(weights, idx, model.config)
    loss = F.cross_entropy(expected.flatten(0, 1), targets.flatten())
    logits, our_loss = model(idx, targets)
    assert expected.std() > 0.3, "the weights must make the logits differ"
    assert_close(logits, expected, "logits")
    ours = torch.autograd.grad(our_loss, list(model.parameters()))
    theirs = torch.autograd.grad(loss, list(weights.values()))
    for key, got, want in zip(weights, ours, theirs, strict=True):
        assert_close(got, want, key)
    with torch.no_grad():
        assert_decoding_equals(model, idx, expected.detach(), [T - 5, 1, 3, 1])


def assert_equals_transformers(
    theirs: Callable[[], nn.Module], name: str, weights: hf.Weights, *, T: int, **settings: Any
) -> None:
    """Compares logits, gradients and decoding of our model with a perturbed model of transformers, `theirs()`."""
    model = perturb(theirs())
    ours = ours_with_weights_of(model, name, weights, vocab_size=61, **settings)
    idx, targets = random_tokens(61, 2, T), random_tokens(61, 2, T, seed=2)
    expected = model(idx, use_cache=False).logits
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    logits, our_loss = ours(idx, targets)
    our_loss.backward()
    assert expected.std() > 0.3, "the weights must make the logits differ"
    assert_close(logits, expected, "logits")
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    wanted = hf.convert(gradients, weights, to_dict(ours.config))
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, wanted[key], key)
    with torch.no_grad():
        assert_decoding_equals(ours, idx, expected.detach(), [T - 5, 1, 3, 1])


def assert_close(got: Tensor, want: Tensor, name: str) -> None:
    """Asserts that the largest difference is at most `TOLERANCE` of the largest value."""
    off = ((got - want).abs().max() / want.abs().max()).item()
    assert off < TOLERANCE, f"{name}: off by {off:.1e} of the largest value"


def mixer_model(weights: Weights, idx: Tensor, config: Any, mixer: Callable[[Weights, Tensor, Any], Tensor]) -> Tensor:
    """Computes the logits of a `lmzoo.MixerModel`; `mixer(its weights, x, config)` computes the output of a mixer."""
    x = weights["tokens.weight"][idx]
    for i in range(config.n_layers):
        start = f"blocks.{i}.0.inner."
        inner = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        x = x + mixer(inner, rms(x, weights[f"blocks.{i}.0.before.weight"], config.norm_eps), config)
        h = rms(x, weights[f"blocks.{i}.1.before.weight"], config.norm_eps)
        gate, up = (h @ w.T for w in weights[f"blocks.{i}.1.inner.up.weight"].split(config.d_ff))
        x = x + (gate * gate.sigmoid() * up) @ weights[f"blocks.{i}.1.inner.down.weight"].T
    return rms(x, weights["norm.weight"], config.norm_eps) @ weights["head.weight"].T


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divides x by the root mean square of its last axis and multiplies it by the weight."""
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
