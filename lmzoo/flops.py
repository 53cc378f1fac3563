"""FLOPs of a forward pass: declared by the modules, or counted by torch. A multiply-add counts as two.

A module declares `flops(T)`, the FLOPs per token of its own operations, without its children, in a sequence of length
T. If it runs a child more or less than once per token, it declares `calls(T)`: a dict from the name of such a child to
the number of runs per token and the length of the sequence that the child reads. A block run three times: `{"block":
(3.0, T)}`. A model of patches of four tokens: `{"patches": (0.25, T // 4)}`. A head used in training alone:
`{"extra_head": (0.0, T)}`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmzoo.errors import InputError
from lmzoo.ops.counting import FlopCounter

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel

MEASURED_TOKENS = 1 << 16  # longest sequence of a measurement, which runs the model


def flops_per_token(model: LanguageModel, T: int) -> float:
    """FLOPs of the forward pass per token in a sequence of T; see `LanguageModel.flops_per_token`."""
    T = T if model.traits.extrapolates else min(T, model.config.context_length)  # it cannot see more
    return declared_flops(model, T) if declares_flops(model) else measured_flops(model, T)


def declares_flops(model: nn.Module) -> bool:
    """True if the FLOPs of a model are the sum of what its modules declare.

    The layers of this package declare theirs. A model with modules of its own is measured if none of these declares
    anything (`flops` or `calls`), because the sum would leave them out.
    """
    others = [m for m in model.modules() if type(m).__module__.partition(".")[0] not in ("torch", "lmzoo")]
    return any(hasattr(module, "flops") or hasattr(module, "calls") for module in others or model.modules())


def declared_flops(module: nn.Module, T: int) -> float:
    """FLOPs per token that a module and its children declare; `nn.Linear` needs no declaration.

    A child with two parents, or two names in one parent, is counted twice.
    """
    total, calls = _own_flops(module, T), child_calls(module, T)
    for name, child in module._modules.items():
        if child is not None:
            times, child_T = calls.get(name, (1.0, T))
            total += times * declared_flops(child, child_T)
    return total


def child_calls(module: nn.Module, T: int) -> dict[str, tuple[float, int]]:
    """Returns the value of `calls(T)`; empty for a module that does not declare it.

    Raises `ValueError` for a name that is none of its children.
    """
    declared = getattr(module, "calls", None)
    calls = cast(dict[str, tuple[float, int]], declared(T)) if callable(declared) else {}
    if unknown := calls.keys() - {name for name, child in module._modules.items() if child is not None}:
        raise ValueError(f"{type(module).__name__}.calls({T}) names {min(unknown)!r}, which is none of its children")
    return calls


def _own_flops(module: nn.Module, T: int) -> float:
    declared = getattr(module, "flops", None)
    if callable(declared):
        return cast(float, declared(T))
    return 2.0 * module.in_features * module.out_features if isinstance(module, nn.Linear) else 0.0


def measured_flops(model: LanguageModel, T: int) -> float:
    """FLOPs per token of features and head, counted by torch; for models that consist only of torch modules.

    Counts over T tokens, or `context_length` if that is less and the model does not extrapolate. Raises `InputError`
    for more than `MEASURED_TOKENS` tokens.
    """
    T = T if model.traits.extrapolates else min(T, model.config.context_length)
    if T > MEASURED_TOKENS:
        raise InputError(
            f"T={T} must be at most {MEASURED_TOKENS}: the layers of this model do not declare their FLOPs"
        )
    idx = torch.zeros(1, T, dtype=torch.long, device=model.device)
    with counting() as counter:
        model.head(model.features(idx)[0])
    return counter.get_total_flops() / T


@contextmanager
def counting() -> Generator[FlopCounter]:
    """Counts the operations that run within the block, without gradients."""
    # The counter does not know the fused attention kernel of the CPU, so attention is computed by its definition.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
        yield counter


def active_shares(model: nn.Module) -> dict[int, float]:
    """The share of each parameter that predicting one token uses, by the id of the parameter; 1 if not listed.

    Computed from the declarations of the layers: `active` (the share of expert weights) and `calls` (0 for a child that
    runs only in training).
    """
    shares: dict[int, float] = {}

    def walk(module: nn.Module, used: float) -> None:
        active = getattr(module, "active", {})
        for name, parameter in module.named_parameters(recurse=False):
            shares[id(parameter)] = max(shares.get(id(parameter), 0.0), used * active.get(name, 1.0))
        times = {name: min(1.0, count) for name, (count, _) in child_calls(module, 1).items()}
        for name, child in module.named_children():
            walk(child, used * times.get(name, 1.0))

    walk(model, 1.0)
    return shares
