"""Blocks one after another, each with its own piece of the state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmzoo.state import State


class Stack(nn.ModuleList):
    """A list of blocks, each `(x_BTD, state, ...) -> (y_BTD, state)`; the stack's state is the list of theirs."""

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> list[State]:
        """Its piece of the decoding state before the first token."""
        blocks: list[Any] = list(self)
        return [block.empty_state(batch_size, max_len, device=device, dtype=dtype) for block in blocks]

    def forward(self, x_BTD: Tensor, state: list[State] | None = None, **shared: Any) -> tuple[Tensor, Any]:
        """`shared` (rotations, say) is handed to every block."""
        after: list[State] = []
        for i, block in enumerate(self):
            x_BTD, piece = block(x_BTD, None if state is None else state[i], **shared)
            after.append(piece)
        return x_BTD, None if state is None else after


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The members of the model's outermost module lists: what is repeated over its depth."""
    found: list[nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found
