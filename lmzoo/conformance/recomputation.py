"""Compares gradients with the gradients of a backward pass that computes layers again."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo.conformance.measure import ROUNDING, difference, require_equal
from lmzoo.conformance.tiny import Subject
from lmzoo.errors import ConfigError


def require_repeatable_backward(subject: Subject) -> None:
    """Raises `Fault` if the gradients of one forward pass depend on the random state when the backward pass begins.

    A layer that is computed again in the backward pass must use the dropout mask of the forward pass. A model of
    `Stack`s is also compared with itself under activation checkpointing, which computes every layer again, the last one
    first. Its depth is doubled if the config allows that: the last block of a kind, which is computed again first, may
    read the right value from `ctx.carry` by chance.
    """
    plain = _gradients(subject, seed=1)
    what = "when the backward pass begins with another random state,"
    if any(_can_checkpoint(module) for module in subject.model().modules()) and not _moves_buffers(subject):
        again = _gradients(subject, seed=2, checkpoints=True)
        if all(difference(again[name], gradient) <= ROUNDING for name, gradient in plain.items()):
            return
        if all(difference(found, plain[name]) <= ROUNDING for name, found in _gradients(subject, seed=2).items()):
            what = "with gradient_checkpointing, which runs each layer again in the backward pass,"
            where = "what a layer changes in place (a list or a tensor in `ctx.carry`, an attribute): replace it"
            for name, gradient in plain.items():
                require_equal(again[name], gradient, f"the gradient of {name}, {what}", where, ROUNDING)
    for name, found in _gradients(subject, seed=2).items():
        where = "recomputation that does not restore the random state"
        require_equal(found, plain[name], f"the gradient of {name}, {what}", where, ROUNDING)


def _moves_buffers(subject: Subject) -> bool:
    """True if a pass in train mode changes a buffer, such as a router's bias, so that a second pass differs."""
    model = subject.model().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if before:
        model(subject.tokens(2, min(subject.context, 16)))
    return any(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def _twice_as_deep(subject: Subject) -> dict[str, Any]:
    """Returns overrides of the config for twice the number of layers; none if it has no such field or refuses that."""
    depth = getattr(subject.config, "n_layers", None)
    if not isinstance(depth, int) or subject.instance is not None:  # a caller's layers may differ from the config's
        return {}
    deeper: dict[str, Any] = {"n_layers": 2 * depth}
    try:
        dataclasses.replace(subject.config, **deeper)
    except ConfigError:
        return {}
    return deeper


def _can_checkpoint(module: nn.Module) -> bool:
    """True for a `Stack`, which has a switch for activation checkpointing."""
    return isinstance(getattr(module, "checkpoints", None), bool)


def _gradients(subject: Subject, *, seed: int, checkpoints: bool = False) -> dict[str, Tensor]:
    """Returns the gradients by name of a pass with dropout; `seed` is set between the forward and the backward pass."""
    T = min(subject.context, 16)
    model = subject.model(dropout=0.1, **_twice_as_deep(subject)).train()
    for module in model.modules() if checkpoints else ():
        if _can_checkpoint(module):
            module.checkpoints = True  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = model(subject.tokens(2, T), subject.tokens(2, T, seed=1)).loss
        torch.manual_seed(seed)
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
