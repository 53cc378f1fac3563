"""FLOPs of a forward pass: what modules declare of themselves, or what torch's counter finds. Two per multiply-add."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel


def flops_per_token(model: LanguageModel, T: int) -> float:
    """FLOPs of one token's forward pass in a sequence of T, as `LanguageModel.flops_per_token` says."""
    if any(hasattr(module, "flops") for module in model.modules()):
        return float(sum(declared_flops(module, T) for module in model.modules()))
    return measured_flops(model, T)


def declared_flops(module: nn.Module, T: int) -> float:
    """FLOPs per token that a module declares for itself, without its children; a plain `nn.Linear` is known."""
    declared = getattr(module, "flops", None)
    if callable(declared):
        return cast(float, declared(T))
    return 2.0 * module.in_features * module.out_features if isinstance(module, nn.Linear) else 0.0


def measured_flops(model: LanguageModel, T: int) -> float:
    """FLOPs per token of features and head, as torch counts them; for models made of torch's own modules alone.

    Over T tokens, or `context_length` if that is less and the model does not extrapolate.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    T = T if model.traits.extrapolates else min(T, model.config.context_length)
    idx = torch.zeros(1, T, dtype=torch.long, device=model.device)
    # The CPU's fused attention kernel is unknown to the counter: attention is spelled out for it.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.head(model.features(idx)[0])
    return counter.get_total_flops() / T


def active_shares(model: nn.Module) -> dict[int, float]:
    """The share of each parameter that the prediction of one token uses, by the parameter's id; 1 if it is not here.

    Taken from what layers declare: `active` (the share of expert weights) and `calls` (0 for a child that runs in
    training alone).
    """
    shares: dict[int, float] = {}

    def walk(module: nn.Module, used: float) -> None:
        active = getattr(module, "active", {})
        for name, parameter in module.named_parameters(recurse=False):
            shares[id(parameter)] = max(shares.get(id(parameter), 0.0), used * active.get(name, 1.0))
        calls = getattr(module, "calls", None)
        times = {name: min(1.0, count) for name, (count, _) in calls(1).items()} if callable(calls) else {}
        for name, child in module.named_children():
            walk(child, used * times.get(name, 1.0))

    walk(model, 1.0)
    return shares
