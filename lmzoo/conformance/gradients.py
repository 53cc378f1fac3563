"""Gradients of logits with respect to the embeddings of tokens, whichever module looks them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmzoo.model import LanguageModel


def embedding_gradients(model: LanguageModel, idx: Tensor, output: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Returns the gradient of a scalar with respect to each embedding lookup of idx (B, T), as (B, T, width).

    `output` computes the scalar from the logits (B, T, V). The gradient is zero for a lookup that the logits do not
    depend on. The list is empty for a model that looks up no embedding of idx.
    """
    with torch.enable_grad():
        with Embeddings(idx) as embeddings:
            logits_BTV = model(idx).logits
        if not embeddings.found:
            return []
        gradients = torch.autograd.grad(output(logits_BTV), embeddings.found, allow_unused=True, materialize_grads=True)
    return [gradient.flatten(2)[:, -idx.shape[1] :] for gradient in gradients]  # columns before idx are padding


class Embeddings(TorchFunctionMode):
    """Collects, while active, the result of every embedding lookup of `idx`, whichever module does it."""

    def __init__(self, idx: Tensor) -> None:
        self.idx = idx
        self.found: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.embedding and args[0].ndim == 2 and torch.equal(args[0][:, -self.idx.shape[1] :], self.idx):
            # A table that is a constant needs no gradient itself. Padding may stand before idx.
            out = out if out.requires_grad else out.detach().requires_grad_()
            self.found.append(out)
        return out
