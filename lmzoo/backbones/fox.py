"""FoX, the forgetting transformer (Lin et al. 2025, arXiv 2503.02130): softmax attention with forget gates.

Blocks of forgetting attention (`lmzoo.layers.forgetting_attention`) and SwiGLU. Distinctive: every head has a forget
gate that depends on the token; the logarithms of the gates between a key and a query are added to their score, so a
head can drop what came before. The gates replace rotary positions. With `pro`, the block of the paper's FoX (Pro): keys
and values are shifted by a share of a token, queries, keys and outputs are normalized per head, and outputs are gated.
Deviations: query, key and value share one projection; so do gate and up; grouped queries are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.context import Rope
from lmzoo.layers.forgetting_attention import ForgettingAttention, ForgettingAttentionPro
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class FoXConfig(MixerConfig):
    """FoX's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    pro: bool = False  # shifted keys and values, norms per head, output gates
    rope_theta: float | None = None  # base of the rotary wavelengths; None: no rotary positions

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=self.rope_theta is not None)
        if self.rope_theta is not None:
            require_positive(self, "rope_theta")
            require(not self.pro, f"rope_theta={self.rope_theta} must be None with pro=True")


@register_model("fox")
class FoX(MixerModel):
    """Blocks of forgetting attention and SwiGLU."""

    config_class = FoXConfig

    def make_mixer(self, config: Any, layer: int) -> ForgettingAttention:
        if config.pro:
            return ForgettingAttentionPro(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads)
        rope = None if config.rope_theta is None else Rope(config.rope_theta)
        return ForgettingAttention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, rope=rope)
