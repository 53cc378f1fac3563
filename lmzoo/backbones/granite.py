"""Granite (IBM 2024, arXiv 2405.04324 and the configurations of Granite 3): Llama with four multipliers.

Distinctive: embeddings, attention scores, branches and logits are multiplied by constants, so that settings found on a
small model hold for a large one (maximal update parametrization, Yang et al. 2022, arXiv 2203.03466). Initial values as
in the published configurations (`initializer_range`): N(0, 0.02²) for all matrices. Deviations: query, key and value
share one projection; so do gate and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.rope_scaling import parse_rope_scaling
from lmzoo.layers.scale import Scale
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class GraniteConfig(DecoderConfig):
    """Granite's sizes and multipliers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"attention_bias": True, "rope_scaling": "linear factor=2"},)

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "yarn factor=4 original=4096" (lmzoo.layers.rope_scaling)
    attention_bias: bool = False  # attention projections have biases
    embedding_scale: float = 12.0  # factor of the embeddings
    attention_scale: float | None = None  # factor of the products of queries and keys; None: 1 / head width
    residual_scale: float = 0.22  # factor of what a layer adds
    logit_divisor: float = 4.0  # the logits are divided by it
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        set_default(self, "attention_scale", self.n_heads / self.d_model)
        require_positive(self, "d_ff", "rope_theta", "embedding_scale", "attention_scale", "residual_scale")
        require_positive(self, "logit_divisor")
        parse_rope_scaling(self.rope_scaling)


@register_model("granite")
class Granite(Decoder):
    """Blocks of attention and SwiGLU, whose outputs are scaled."""

    config_class = GraniteConfig

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        config: Any = self.config
        return config.embedding_scale * self.tokens(idx_BT)

    def block(self, config: Any, layer: int) -> Stack:
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)),
            scale=config.attention_scale,
            bias=config.attention_bias,
        )
        layers = (attention, MLP(config.d_model, config.d_ff))
        return Stack(Residual(self.make_norm(config), inner, Scale(config.residual_scale)) for inner in layers)

    def make_head(self, config: Any) -> nn.Module:
        return Scale(1 / config.logit_divisor, super().make_head(config))
