"""OLMo 2 (Team OLMo 2024, arXiv 2501.00656): Llama with norms after the branches instead of before.

Distinctive: attention and feed-forward layer read the residual stream as it is, and their outputs are normalized before
they are added, which keeps the stream small and training stable; queries and keys are normalized too, each over all
heads together. Initial values as in the paper: N(0, 0.02²) for all weights. Deviations: query, key and value share one
projection; so do gate and up; the z-loss of the paper's training is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import AllHeadsRMSNorm
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class OLMo2Config(DecoderConfig):
    """OLMo 2's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    rope_theta: float = 500000.0  # base of the rotary wavelengths
    norm_eps: float = 1e-6  # added to the variance in a normalization

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        require_positive(self, "d_ff", "rope_theta")
        require_heads(self)


@register_model("olmo2")
class OLMo2(Decoder):
    """Blocks of attention and SwiGLU, each followed by its norm."""

    config_class = OLMo2Config

    def block(self, config: Any, layer: int) -> Stack:
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            rope=Rope(config.rope_theta),
            qk_norm=partial(AllHeadsRMSNorm, eps=config.norm_eps),
        )
        layers = (attention, MLP(config.d_model, config.d_ff))
        return Stack(Residual(None, inner, after=self.make_norm(config)) for inner in layers)
