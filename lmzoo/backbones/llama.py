"""Llama (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288), and with a `window` Mistral (arXiv 2310.06825).

A pre-norm transformer with RMSNorm, SwiGLU, rotary positions, no biases, and optionally grouped queries and a sliding
window. Distinctive: positions are rotations of queries and keys, so the model works beyond `context_length`; with a
window the decoding state stops growing. The papers do not state the initial values; the published configurations say
N(0, 0.02²) for all weights (`initializer_range`). Deviations: query, key and value share one projection; so do gate
and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """Llama's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    window: int | None = None  # tokens that each layer sees, the present one included; None: all
    rope_theta: float = 10000.0  # base of the rotary wavelengths

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "d_ff", "rope_theta")
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        if self.window is not None:
            require_positive(self, "window")


@register_model("llama")
class Llama(Decoder):
    """Blocks of attention with rotary positions and SwiGLU."""

    config_class = LlamaConfig

    def block(self, config: Any, layer: int) -> Stack:
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            window=config.window,
            rope=Rope(config.rope_theta),
        )
        layers = (attention, MLP(config.d_model, config.d_ff))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)
