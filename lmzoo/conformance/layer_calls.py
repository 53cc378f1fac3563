"""The calls of layers in a forward pass, recorded so that a check can repeat them with gradients and other rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lmzoo.layers.offers import on_other_positions
from lmzoo.model import LanguageModel

ROWS = 5  # in the texts: unlike every other size, so that no other first axis is taken for the batch


class LayerCall(NamedTuple):
    """One call of a layer: its name in the model, the layer, and its arguments."""

    where: str
    layer: Any
    inputs: tuple[Any, ...]  # (x_BTD, state, ctx), or x_BTD alone

    @property
    def name(self) -> str:
        """Names the layer in a message."""
        return f"{self.where or 'the model'} ({type(self.layer).__name__})"

    def again(self, rows: int) -> Tensor:
        """Returns the output of the layer, (rows, T, D), for copies of its first row, which require gradients."""
        B = len(self.inputs[0])

        def repeated(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != B:
                return value
            made = value[:1].detach().expand(rows, *value.shape[1:]).clone()
            # The second clone is no leaf of the graph, so a layer may change it in place.
            return made.requires_grad_().clone() if made.is_floating_point() else made

        inputs = [tree_map(repeated, value) for value in self.inputs]
        with torch.enable_grad():
            out = self.layer(*(_with_carry(value, lambda carry: tree_map(repeated, carry)) for value in inputs))
        y: Tensor = out[0] if isinstance(out, tuple) else out
        return y


def calls_of(
    model: LanguageModel, idx_BT: Tensor, method: str, visit: Callable[[LayerCall], object] | None = None
) -> tuple[list[LayerCall], Tensor]:
    """Returns the calls of the layers that have `method`, and the logits of idx (B, T).

    Layers that run on other positions than the tokens' are left out. `visit` is called with each call during
    the forward pass, right after the layer.
    """
    calls: list[LayerCall] = []
    apart = set(on_other_positions(model, idx_BT.shape[1]))
    names = {module: name for name, module in model.named_modules() if hasattr(module, method) and module not in apart}

    def keep(layer: nn.Module, inputs: tuple[Any, ...], _out: Any) -> None:
        calls.append(LayerCall(names[layer], layer, tuple(_with_carry(value, dict) for value in inputs)))
        if visit is not None:
            visit(LayerCall(names[layer], layer, inputs))

    handles = [layer.register_forward_hook(keep) for layer in names]
    try:
        with torch.no_grad():
            logits_BTV = model(idx_BT).logits
    finally:
        for handle in handles:
            handle.remove()
    return calls, logits_BTV


def _with_carry(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a context with `change` applied to its carried values, which later layers replace; else the value."""
    return dataclasses.replace(value, carry=change(value.carry)) if hasattr(value, "carry") else value
