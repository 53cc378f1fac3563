"""The width of a head is a setting of its own: n_heads times head_dim is not d_model.

T5 (Raffel et al. 2019, arXiv 1910.10683) and Gemma (2024, arXiv 2403.08295).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.mlp import MLP
from lmzoo.layers.stack import Residual, Stack


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(DecoderConfig):
    n_heads: int = 3
    head_dim: int = 6


class MODEL(Decoder):
    config_class = HeadsConfig

    def block(self, config: Any, layer: int) -> nn.Module:
        attention = Attention(config.d_model, config.n_heads, head_dim=config.head_dim, rope=Rope())
        inner = (attention, MLP(config.d_model, 2 * config.d_model))
        return Stack(Residual(self.make_norm(config), part) for part in inner)
