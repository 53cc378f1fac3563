"""Gradients of logits to the embeddings of tokens, for any model, whichever module looks the tokens up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmzoo.model import LanguageModel


def embedding_gradients(model: LanguageModel, idx: Tensor, output: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Returns the gradients of `output(logits)`, a scalar, to each embedding lookup of idx (B, T): (B, T, width) each.

    `output` gets the logits (B, T, V). A lookup that the logits do not depend on has zeros. The list is empty for a
    model that looks up no embedding of idx.
    """
    with torch.enable_grad():
        with Embeddings(idx) as embeddings:
            logits_BTV = model(idx).logits
        if not embeddings.found:
            return []
        # Materialized: zeros where there is no path.
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
            # The table may be read with padding before idx, and it may be a constant, which has no gradient itself.
            out = out if out.requires_grad else out.detach().requires_grad_()
            self.found.append(out)
        return out
