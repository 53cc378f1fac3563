"""Distillation: a teacher's logits, and at first its features, as auxiliary losses beside the cross-entropy.

The features never see the targets, the teacher runs in eval mode without gradients, and the loss that a run reports is
the cross-entropy alone. Legend: B batch, T time, V vocabulary, N positions with a target.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo import losses
from lmzoo.configs import require_between, require_positive
from lmzoo.layers.stack import blocks_of
from lmzoo.model import LanguageModel
from lmzoo.ops.precision import wide

# (forward, idx (B, T), targets (B, T), steps done so far) -> the loss of a step, in nats per token.
Objective = Callable[[Callable[..., Any], Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The settings of a distillation."""

    temperature: float = 1.0  # divides the logits of both models
    weight: float = 1.0  # of the divergence from the teacher, beside the cross-entropy
    match_steps: int = 0  # first steps, which train the features after each layer to equal the teacher's, and no logits

    def __post_init__(self) -> None:
        require_positive(self, "temperature", "weight")
        require_between(self, "match_steps", 0, float("inf"), below_high=True)


def cross_entropy(forward: Callable[..., Any], idx_BT: Tensor, targets_BT: Tensor, _step: int) -> Tensor:
    """The objective of a run without a teacher: the loss of the model, with its own auxiliary losses."""
    _, loss = forward(idx_BT, targets_BT, return_logits=False)
    return loss


@dataclass(frozen=True)
class Distillation:
    """The objective of a run with a teacher: the loss of `model`, and "match" or "distill" as an auxiliary loss.

    "distill" is `weight` times `divergence`. In the first `match_steps` steps, "match" replaces it, and nothing else
    has a gradient: the mean over the layers of `relative_error` of the features.
    """

    model: LanguageModel
    teacher: LanguageModel
    config: DistillConfig

    def __call__(self, forward: Callable[..., Any], idx_BT: Tensor, targets_BT: Tensor, step: int) -> Tensor:
        if step < self.config.match_steps:
            return self._matching(forward, idx_BT, targets_BT)
        logits_BTV, loss = forward(idx_BT, targets_BT)
        with torch.no_grad():
            wanted_BTV = self.teacher(idx_BT).logits
        value = divergence(logits_BTV, wanted_BTV, targets_BT, self.config.temperature)
        return losses.with_auxiliary(loss, {"distill": self.config.weight * value})

    def _matching(self, forward: Callable[..., Any], idx_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with torch.no_grad(), features(self.teacher) as wanted:
            self.teacher(idx_BT)
        with features(self.model) as found:
            _, loss = forward(idx_BT, targets_BT, return_logits=False)
        errors = [relative_error(x, y) for x, y in zip(found, wanted, strict=True)]
        return losses.with_auxiliary(loss.detach(), {"match": torch.stack(errors).mean()})


def relative_error(x: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of `x`, divided by the mean square of `wanted`; 0 if they are equal."""
    x, wanted = wide(x), wide(wanted)
    return F.mse_loss(x, wanted) / wanted.square().mean()


def divergence(logits_BTV: Tensor, wanted_BTV: Tensor, targets_BT: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the model's distribution from the teacher's, in nats, times `temperature`².

    Both logits are divided by the temperature first; the factor keeps the size of the gradients (Hinton et al. 2015,
    arXiv 1503.02531). It is the mean over the positions whose target is not `IGNORE_INDEX`, 0 if there is none.
    """
    kept_N = (targets_BT != losses.IGNORE_INDEX).flatten()
    mine_NV, wanted_NV = (
        F.log_softmax(wide(logits.flatten(0, 1)) / temperature, dim=-1) for logits in (logits_BTV, wanted_BTV)
    )
    each_N = (wanted_NV.exp() * (wanted_NV - mine_NV)).sum(dim=-1)
    return temperature**2 * each_N.where(kept_N, 0.0).sum() / kept_N.sum().clamp(min=1)


@contextmanager
def features(model: LanguageModel) -> Generator[list[Tensor]]:
    """Collects the outputs of the blocks of a forward pass within the block, in order."""
    found: list[Tensor] = []

    def keep(_block: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, Any]) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in blocks_of(model)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
