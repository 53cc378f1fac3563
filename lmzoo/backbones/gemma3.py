"""Gemma 3 (Gemma Team 2025, arXiv 2503.19786), and with caps in place of q/k norms Gemma 2 (arXiv 2408.00118).

A transformer with grouped queries and GeGLU. Distinctive: five of six layers see only a window, so that the cache of a
long text is small; they rotate by a short base and the global layers by a long one; queries and keys are normalized;
a norm before and a norm after each branch (sandwich norms), with the weight stored as its difference from 1; the
embedding, which is also the head, is scaled by sqrt(d_model). Gemma 2 has windows in every second layer, no q/k norms,
and soft caps on attention scores and logits. Gemma 1 (arXiv 2403.08295) has no windows, no caps and no norms after
branches; VaultGemma (Google 2025) is Gemma 2 without these norms. The reports do not state the initial values; the
published configurations say N(0, 0.02²). Deviations: query, key and value share one projection; so do gate and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require, require_divides, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.capped_head import CappedHead
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import UnitOffsetRMSNorm, each_head
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.stack import Residual, Stack
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

KINDS = ("local", "window", "global")


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(DecoderConfig):
    """Gemma's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "head_dim": 2, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "local global", "qk_norm": False, "attention_cap": 2.0, "logit_cap": 3.0, "query_scalar": 24.0},
        {"pattern": "global", "qk_norm": False, "post_norms": False},
        {"pattern": "window local global", "window": 5, "rope_scaling": "yarn factor=2 original=8"},
    )

    n_layers: int = 6  # number of blocks
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    pattern: str = "local*5 global"  # layers, repeated: "global", "window", or "local" with its own rotary wavelengths
    window: int = 64  # tokens that layers "window" and "local" see, the present one included
    rope_theta: float = 1000000.0  # base of the rotary wavelengths, but in local layers
    rope_scaling: str = "none"  # the same, for longer texts: "linear factor=8" (lmzoo.layers.rope_scaling)
    local_rope_theta: float = 10000.0  # base of the rotary wavelengths in local layers
    qk_norm: bool = True  # queries and keys are normalized
    post_norms: bool = True  # a norm after each branch too
    query_scalar: float | None = None  # scores are divided by its square root; None: head_dim
    attention_cap: float | None = None  # limit of the attention scores; None: no limit
    logit_cap: float | None = None  # limit of the logits; None: no limit
    norm_eps: float = 1e-6  # added to the variance in a normalization
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads")
        set_default(self, "n_kv_heads", self.n_heads)
        set_default(self, "d_ff", swiglu_width(self.d_model))
        if self.head_dim is None:
            require_divides(self, "n_heads", "d_model")
        set_default(self, "head_dim", self.d_model // self.n_heads)
        require_positive(self, "n_kv_heads", "head_dim", "d_ff", "window", "rope_theta", "local_rope_theta")
        require_divides(self, "n_kv_heads", "n_heads")
        require(self.head_dim is None or self.head_dim % 2 == 0, f"head_dim={self.head_dim} must be even to be rotated")
        pattern(self.pattern, self.n_layers, KINDS)
        require_rope_scaling(self, self.head_dim or 0)
        for cap in ("query_scalar", "attention_cap", "logit_cap"):
            if getattr(self, cap) is not None:
                require_positive(self, cap)


@register_model("gemma3")
class Gemma3(Decoder):
    """Blocks of local or global attention and GeGLU, with sandwich norms."""

    config_class = Gemma3Config

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, KINDS)[layer]
        rope = Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling))
        options: dict[str, Any] = {
            "n_kv_heads": config.n_kv_heads,
            "head_dim": config.head_dim,
            "window": None if kind == "global" else config.window,
            "rope": Rope(config.local_rope_theta) if kind == "local" else rope,
            "scale": None if config.query_scalar is None else config.query_scalar**-0.5,
        }
        if config.qk_norm:
            options["qk_norm"] = each_head(partial(UnitOffsetRMSNorm, eps=config.norm_eps))
        if config.attention_cap is None:
            attention = Attention(config.d_model, config.n_heads, **options)
        else:
            attention = ScoredAttention(config.d_model, config.n_heads, cap=config.attention_cap, **options)
        layers = (attention, MLP(config.d_model, config.d_ff, gelu_tanh))
        if not config.post_norms:
            return Stack(Residual(self.make_norm(config), inner) for inner in layers)
        return Stack(Residual(self.make_norm(config), inner, self.make_norm(config)) for inner in layers)

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.tokens(idx_BT) * math.sqrt(self.tokens.embedding_dim)

    def make_norm(self, config: Any) -> UnitOffsetRMSNorm:
        return UnitOffsetRMSNorm(config.d_model, config.norm_eps)

    def make_head(self, config: Any) -> nn.Module:
        head = super().make_head(config)
        return head if config.logit_cap is None else CappedHead(head, config.logit_cap)
