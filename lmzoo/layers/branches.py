"""Layers side by side that share one norm. Legend: B batch, T time, D model width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers import stack
from lmzoo.layers.context import Context
from lmzoo.state import State


class Branches(nn.ModuleList):
    """The sum of the outputs of layers that read the same input: `Residual(norm, Branches(attention, mlp))` (GPT-J).

    In `Parallel`, each branch has a norm of its own.
    """

    def __init__(self, *layers: nn.Module) -> None:
        for layer in layers:
            stack.require_layer("Branches", layer)
        super().__init__(layers)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> list[State]:
        """Returns the list of the layers' states before the first token."""
        return [stack.init_state(layer, batch_size, max_len, like) for layer in self]

    def forward(self, x_BTD: Tensor, state: list[State] | None, ctx: Context) -> tuple[Tensor, list[State] | None]:
        outputs: list[Tensor] = []
        after: list[State] = []
        for i, layer in enumerate(self):
            y_BTD, piece = stack.call(layer, x_BTD, None if state is None else state[i], ctx)
            outputs.append(y_BTD)
            after.append(piece)
        return torch.stack(outputs).sum(dim=0), None if state is None else after
