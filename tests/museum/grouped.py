"""A correct transformer with grouped queries and a base of its rotary angles, both of which are settings.

Beside `base.py`, for exhibits about settings and about what two models of other settings share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lmzoo.configs import require_divides, set_default
from lmzoo.layers.linear import Linear
from lmzoo.ops.rope import apply_rope, rope_table
from lmzoo.state import TimeBuffer
from tests.museum.base import Attention, MuseumConfig, Transformer


@dataclass(frozen=True, kw_only=True)
class GroupedConfig(MuseumConfig):
    n_heads: int = 4
    n_kv_heads: int | None = None
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_divides(self, "n_kv_heads", "n_heads")


class GroupedAttention(Attention):
    """Attention in which several query heads share a key head (G of them)."""

    config: GroupedConfig

    def __init__(self, config: GroupedConfig, layer: int) -> None:
        nn.Module.__init__(self)
        self.config, self.layer = config, layer
        self.G, self.K = config.n_kv_heads or config.n_heads, config.d_model // config.n_heads
        self.queries = Linear(config.d_model, config.d_model, bias=False)
        self.keys_values = Linear(config.d_model, 2 * self.G * self.K, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    @property
    def theta(self) -> float:
        """Returns the base of the rotary angles."""
        return self.config.rope_theta

    def table(self, position: int, T: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns the cosines and sines of T positions."""
        return rope_table(position, T, width, self.theta, device=self.out.weight.device, dtype=torch.float64)

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        options = {"window": self.config.window, "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, max_len, self.G, self.K, **options) for _ in "kv"]

    def repeat(self, x_BSGK: Tensor, T: int) -> Tensor:
        """Returns one key head for each query head, for T queries: (B, S, H, K)."""
        return x_BSGK.repeat_interleave(self.config.n_heads // self.G, dim=2)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, _ = x_BTD.shape
        q = self.queries(x_BTD).view(B, T, self.config.n_heads, self.K)
        k, v = self.keys_values(x_BTD).view(B, T, 2, self.G, self.K).unbind(2)
        table = self.table(position, T, self.K)
        q, k = apply_rope(q, *table), apply_rope(k, *table)
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        return self.out(self.attend(q, self.repeat(k, T), self.repeat(v, T), self.mask(T, k.shape[1]))), cache


class Grouped(Transformer):
    """A transformer with grouped queries."""

    config_class = GroupedConfig
    attention_class: ClassVar[type[Attention]] = GroupedAttention
