"""Qwen3-Next (Qwen Team 2025) and Qwen3.5: three layers of the gated delta rule to one of gated attention.

Distinctive: most layers keep a memory of fixed size, the gated delta rule (`lmzoo.layers.gated_delta`), whose heads can
share queries and keys; each fourth layer is attention with few heads of keys and values, of which a quarter of the
features is rotated, and a gate on its output (`lmzoo.layers.gated_attention`). Norms store their weight as its
difference from 1. The feed-forward layers are dense (Qwen3.5), or many small experts and a gated one for all tokens
(Qwen3-Next: `feed_forward = "experts"`). There is no paper of the whole; initial values of the delta rule as in Gated
DeltaNet (arXiv 2412.06464), N(0, 0.02²) for all other matrices. Deviations: query, key and value share one projection,
gate and up another; no prediction of several tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import (
    require_between,
    require_divides,
    require_experts,
    require_heads,
    require_positive,
    set_default,
)
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.context import Rope
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.gated_shared_experts import GatedSharedExperts
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import UnitOffsetRMSNorm, each_head
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling, require_rotary_fraction
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

MIXERS = ("delta", "attention")
FEED_FORWARDS = ("mlp", "experts")


@dataclass(frozen=True, kw_only=True)
class Qwen3NextConfig(DecoderConfig):
    """Qwen3-Next's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8, "d_expert": 8, "d_shared": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "attention delta", "feed_forward": "experts mlp", "delta_key_heads": 2},
        {
            "pattern": "attention delta",
            "feed_forward": "experts",
            "normalize": False,
            "rope_scaling": "yarn factor=2 original=8",
        },
    )

    pattern: str = "delta*3 attention"  # mixers from bottom to top, repeated up to n_layers
    feed_forward: str = "mlp"  # feed-forward layers from bottom to top, repeated: "mlp" or "experts"
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values in attention; None: as many as n_heads
    head_dim: int | None = None  # width of a head of attention; None: d_model / n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    rotary_fraction: float = 0.25  # rotated share of a head's features: the first ones, rounded down to an even number
    delta_heads: int | None = None  # heads of the delta rule; None: as many as n_heads
    delta_key_heads: int | None = None  # heads of queries and keys of the delta rule; None: as many as delta_heads
    key_dim: int | None = None  # width of a key of the delta rule; None: d_model / delta_heads, rounded down
    value_dim: int | None = None  # width of a value of the delta rule; None: key_dim
    d_conv: int = 4  # length of the delta rule's filters
    d_ff: int | None = None  # width of a dense layer; None: 8/3 d_model, rounded up to a multiple of 32
    d_expert: int | None = None  # width of one expert; None: d_ff / 4, rounded up
    d_shared: int | None = None  # width of the expert for all tokens; None: d_expert
    n_experts: int = 8  # experts of a layer that has them
    top_k: int = 2  # experts for each token
    normalize: bool = True  # the weights of the chosen experts sum to 1
    balance_loss: float = 0.001  # coefficient of the experts' balance loss
    norm_eps: float = 1e-6  # added to the variance in a normalization

    def __post_init__(self) -> None:
        super().__post_init__()
        mixers = pattern(self.pattern, self.n_layers, MIXERS)
        pattern(self.feed_forward, self.n_layers, FEED_FORWARDS, name="feed_forward")
        set_default(self, "n_kv_heads", self.n_heads)
        rotated = "attention" in mixers
        require_heads(self, rotated=rotated)
        require_rope_scaling(self, require_rotary_fraction(self, rotated=rotated))
        set_default(self, "delta_heads", self.n_heads)
        set_default(self, "delta_key_heads", self.delta_heads)
        require_positive(self, "delta_heads", "delta_key_heads", "d_conv", "rope_theta")
        require_divides(self, "delta_key_heads", "delta_heads")
        set_default(self, "key_dim", max(1, self.d_model // (self.delta_heads or 1)))
        set_default(self, "value_dim", self.key_dim)
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "d_expert", -(-(self.d_ff or 0) // 4))
        set_default(self, "d_shared", self.d_expert)
        require_positive(self, "key_dim", "value_dim", "d_ff", "d_expert", "d_shared", "n_experts", "top_k")
        require_experts(self)
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)


@register_model("qwen3_next")
class Qwen3Next(Decoder):
    """Blocks of the gated delta rule or gated attention, then SwiGLU or experts."""

    config_class = Qwen3NextConfig

    def block(self, config: Any, layer: int) -> Stack:
        mixer = pattern(config.pattern, config.n_layers, MIXERS)[layer]
        kind = pattern(config.feed_forward, config.n_layers, FEED_FORWARDS)[layer]
        layers = (
            self.make_delta(config) if mixer == "delta" else self.make_attention(config),
            self.make_experts(config) if kind == "experts" else MLP(config.d_model, config.d_ff),
        )
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_norm(self, config: Any) -> UnitOffsetRMSNorm:
        return UnitOffsetRMSNorm(config.d_model, config.norm_eps)

    def make_delta(self, config: Any) -> GatedDelta:
        """Returns the gated delta rule; the norm of its output has a plain weight."""
        return GatedDelta(
            config.d_model,
            config.delta_heads,
            config.key_dim,
            config.value_dim,
            n_key_heads=config.delta_key_heads,
            d_conv=config.d_conv,
            norm_eps=config.norm_eps,
        )

    def make_attention(self, config: Any) -> GatedAttention:
        """Returns the attention of one layer."""
        return GatedAttention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rope=Rope(config.rope_theta, config.rotary_fraction, parse_rope_scaling(config.rope_scaling)),
            qk_norm=each_head(partial(UnitOffsetRMSNorm, eps=config.norm_eps)),
        )

    def make_experts(self, config: Any) -> nn.Module:
        """Returns the experts of one layer."""
        return GatedSharedExperts(
            config.d_model,
            config.d_expert,
            config.n_experts,
            config.top_k,
            config.d_shared,
            normalize=config.normalize,
            balance_loss=config.balance_loss,
        )
