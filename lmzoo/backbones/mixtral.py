"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): Llama with a mixture of experts as its feed-forward layer.

Distinctive: a router sends each token to two of eight SwiGLU layers, so a token uses a fraction of the parameters
(`num_params(active=True)`). Dropless: experts have no capacity limit, so a prediction never depends on other rows or on
later tokens. Training adds Switch's balance loss, computed for each layer (the published code computes it over all
layers together); `balance_loss=0.0` with `balance_bias` uses the bias of DeepSeek-V3 instead. Relatives have many small
experts: Qwen3-MoE (arXiv 2505.09388) and OLMoE (arXiv 2409.02060) with norms of queries and keys, FlexOlmo (arXiv
2507.07024) with norms after the branches, Qwen2-MoE (arXiv 2407.10671) with a gated expert for all tokens, gpt-oss
(arXiv 2508.10925) with biases, limits inside its experts, sinks, and a window in every second layer, and Mellum 2
(JetBrains 2026) with windows whose rotary wavelengths have a base of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmzoo.configs import require, require_between, require_experts, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.clamped_experts import ClampedExperts
from lmzoo.layers.context import Rope
from lmzoo.layers.experts import Experts
from lmzoo.layers.gated_shared_experts import GatedSharedExperts
from lmzoo.layers.mlp import swiglu_width
from lmzoo.layers.norm import qk_norm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

KINDS = ("rope", "full", "local")


@dataclass(frozen=True, kw_only=True)
class MixtralConfig(DecoderConfig):
    """Mixtral's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"qk_norm": "head", "normalize": False, "rope_scaling": "yarn factor=2 original=8", "pattern": "local rope"},
        {"qk_norm": "all", "d_shared": 24, "attention_bias": "qkv", "post_norm": True},
        {"pattern": "rope full", "window": 5, "sinks": True, "attention_bias": "all", "clamp": 0.5},
    )

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    qk_norm: Literal["none", "head", "all"] = "none"  # queries and keys are normalized, by head or over all heads
    attention_bias: Literal["none", "qkv", "all"] = "none"  # attention projections with a bias
    sinks: bool = False  # a learned score for each head that takes attention away from all keys
    post_norm: bool = False  # norms after the branches, in place of the norms before them
    d_ff: int | None = None  # width of one expert; None: 8/3 d_model, rounded up to a multiple of 32
    n_experts: int = 8  # experts of each layer
    top_k: int = 2  # experts for each token
    normalize: bool = True  # the weights of the chosen experts sum to 1
    clamp: float | None = None  # limit of the inner features of gpt-oss's experts, which have biases; None: SwiGLU
    d_shared: int | None = None  # width of an expert that reads every token and has a gate; None: there is none
    window: int | None = None  # tokens that layers "rope" and "local" see, the present one included; None: all
    pattern: str = "rope"  # layers from bottom to top, repeated: "rope full"; "full": no window; "local": another base
    rope_theta: float = 1e6  # base of the rotary wavelengths, but in layers "local"
    rope_scaling: str = "none"  # the same, for longer texts: "yarn factor=32 original=4096" (lmzoo.layers.rope_scaling)
    local_rope_theta: float = 10000.0  # base of the rotary wavelengths in layers "local"
    balance_loss: float = 0.02  # coefficient of the balance loss; 0 turns it off
    balance_bias: bool = False  # balance by a bias added when experts are chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        require_positive(self, "d_ff", "n_experts", "top_k", "rope_theta", "local_rope_theta")
        require_experts(self)
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        for limit in ("window", "clamp", "d_shared"):
            if getattr(self, limit) is not None:
                require_positive(self, limit)
        if self.d_shared is not None:
            plain = self.clamp is None and not self.balance_bias
            require(plain, f"d_shared={self.d_shared} must be none with clamp or balance_bias")
        pattern(self.pattern, self.n_layers, KINDS)
        require_rope_scaling(self, self.head_dim or self.d_model // self.n_heads)


@register_model("mixtral")
class Mixtral(Decoder):
    """Blocks of attention with rotary positions and experts."""

    config_class = MixtralConfig

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, KINDS)[layer]
        layers = (self.make_attention(config, kind), self.make_experts(config))
        if config.post_norm:
            return Stack(Residual(None, inner, after=self.make_norm(config)) for inner in layers)
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_attention(self, config: Any, kind: str) -> Attention:
        """Returns attention of a kind in the pattern."""
        rope = Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling))
        options: dict[str, Any] = {
            "n_kv_heads": config.n_kv_heads,
            "head_dim": config.head_dim,
            "window": None if kind == "full" else config.window,
            "rope": Rope(config.local_rope_theta) if kind == "local" else rope,
            "qk_norm": qk_norm(config.qk_norm, config.norm_eps),
            "bias": config.attention_bias != "none",
            "out_bias": config.attention_bias == "all",
        }
        if config.sinks:
            return ScoredAttention(config.d_model, config.n_heads, sinks=True, **options)
        return Attention(config.d_model, config.n_heads, **options)

    def make_experts(self, config: Any) -> Experts:
        """Returns the experts of one block."""
        sizes = (config.d_model, config.d_ff, config.n_experts, config.top_k)
        options: dict[str, Any] = {"normalize": config.normalize, "balance_loss": config.balance_loss}
        if config.d_shared is not None:
            return GatedSharedExperts(*sizes, config.d_shared, **options)
        if config.clamp is not None:
            return ClampedExperts(*sizes, limit=config.clamp, balance_bias=config.balance_bias, **options)
        return Experts(*sizes, balance_bias=config.balance_bias, **options)
