"""Sine positions that are added to the tokens, in front of attention without positions of its own.

Ours: a table that is kept in the dtype of the first call stays rounded when the model is made wider.

Legend: B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require, require_heads, require_positive
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context

CAUGHT_BY = "changed_weights"


@dataclass(frozen=True, kw_only=True)
class Config(lmzoo.MixerConfig):
    n_heads: int = 4
    base: float = 10000.0  # of the wavelengths

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)
        require_positive(self, "base")
        require(self.d_model % 2 == 0, f"d_model={self.d_model} must be even")


class Sines(nn.Module):
    """Maps positions to (T, D) in the dtype of the tokens; the table is computed in float64."""

    def __init__(self, d_model: int, base: float) -> None:
        super().__init__()
        self.d_model, self.base = d_model, base
        self.table: Tensor | None = None

    def compute(self, length: int, like: Tensor) -> Tensor:
        """Returns the table of the first `length` positions, (length, D)."""
        steps = torch.arange(0, self.d_model, 2, dtype=torch.float64, device=like.device) / self.d_model
        angles = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * self.base**-steps
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)

    def rows(self, length: int, like: Tensor) -> Tensor:
        if self.table is None or len(self.table) < length or self.table.device != like.device:
            self.table = self.compute(length, like)
        return self.table

    def forward(self, x_BTD: Tensor, position: int) -> Tensor:
        end = position + x_BTD.shape[1]
        return x_BTD + 0.02 * self.rows(end, x_BTD)[position:end].to(x_BTD.dtype)


class MODEL(lmzoo.MixerModel):
    """Attention with sine positions."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.sines = Sines(config.d_model, config.base)

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.sines(self.tokens(idx_BT), ctx.position)

    def make_mixer(self, config: Any, layer: int) -> Attention:
        return Attention(config.d_model, config.n_heads)
