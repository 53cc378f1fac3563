"""Llama (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288) and its relatives: Mistral, Qwen.

A pre-norm transformer with RMSNorm, SwiGLU, rotary positions, no biases, and optionally grouped queries and a sliding
window. Distinctive: positions are rotations of queries and keys, so the model works beyond `context_length`; with a
window the decoding state stops growing. The relatives differ in their attention, which is put together in
`make_attention`: a window (Mistral, arXiv 2310.06825), biases (Qwen2, arXiv 2407.10671), norms of queries and keys
(Qwen3, arXiv 2505.09388; behind the rotation in Hunyuan), layers without positions (SmolLM3; arXiv 2501.18795), slower
rotations for long texts (Llama 3.1, arXiv 2407.21783), queries that grow with their position (Ministral 3, arXiv
2601.08584), a gate (arXiv 2505.06708), sinks (gpt-oss, arXiv 2508.10925). Apertus (arXiv 2509.14233) has feed-forward
layers without a gate, whose activation has learned slopes (`lmzoo.layers.xielu`). nanochat (Karpathy 2025) has norms
without weights, also behind the embedding, squared ReLUs, and a soft cap on the logits.
The papers do not state the initial values; the published configurations say N(0, 0.02²) for all weights
(`initializer_range`). Deviations: query, key and value share one projection; so do gate and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lmzoo.configs import require, require_between, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.capped_head import CappedHead
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.growing_attention import GrowingAttention
from lmzoo.layers.late_norm_attention import LateNormAttention
from lmzoo.layers.mlp import MLP, squared_relu, swiglu_width
from lmzoo.layers.norm import RMSNorm, each_head
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling, require_rotary_fraction
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.stack import Residual, Stack
from lmzoo.layers.xielu import XIELU
from lmzoo.registry import register_model

WINDOWS = ("rope", "nope_window")
UNROTATED = ("nope", "nope_window")
KINDS = ("rope", "full", *UNROTATED)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """Llama's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "rope nope", "rope_scaling": "yarn factor=2 original=8", "attention_bias": "qkv", "window": 5},
        {"pattern": "rope full", "window": 5, "rotary_fraction": 0.5},
        {"mlp": "relu2", "mlp_bias": True, "post_norms": True},
        {"pattern": "nope_window full", "window": 5, "late_qk_norm": True},
        {"mlp": "xielu", "query_growth": 0.5, "rope_scaling": "yarn factor=2 original=4"},
        {"norm_weight": False, "embedding_norm": True, "late_qk_norm": True, "logit_cap": 3.0, "qk_norm": True},
    )

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    mlp: Literal["swiglu", "relu2", "xielu"] = "swiglu"  # SwiGLU, or a plain layer with a squared ReLU or xIELU
    mlp_bias: bool = False  # feed-forward layers have biases
    window: int | None = None  # tokens that layers "rope" and "nope_window" see, the present one included; None: all
    pattern: str = "rope"  # layers from bottom to top, repeated: "rope*3 nope"; "full": no window; "nope": no positions
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rotary_fraction: float = 1.0  # rotated share of a head's features: the first ones, rounded down to an even number
    rope_scaling: str = "none"  # for longer texts: "linear factor=4", yarn, longrope, ... (lmzoo.layers.rope_scaling)
    attention_bias: Literal["none", "qkv", "all"] = "none"  # attention projections with a bias
    qk_norm: bool = False  # queries and keys of each head are normalized
    late_qk_norm: bool = False  # the same, after their rotation
    query_growth: float = 0.0  # how fast queries grow with their position past `original` of rope_scaling
    post_norms: bool = False  # a norm after each branch too
    norm_weight: bool = True  # norms have weights
    embedding_norm: bool = False  # the embeddings are normalized
    logit_cap: float | None = None  # limit of the logits; None: no limit
    gate: bool = False  # a gate on the output of the attention
    sinks: bool = False  # a learned score for each head that takes attention away from all keys

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "d_ff", "rope_theta")
        set_default(self, "n_kv_heads", self.n_heads)
        kinds = pattern(self.pattern, self.n_layers, KINDS)
        rotated = not {*kinds} <= {*UNROTATED}
        require_heads(self, rotated=rotated)
        if self.window is not None:
            require_positive(self, "window")
        message = f"pattern={self.pattern!r} has nope_window: window must be a number"
        require(self.window is not None or "nope_window" not in kinds, message)
        plain = not (self.late_qk_norm and (self.gate or self.sinks))
        require(plain, f"late_qk_norm={self.late_qk_norm} must be False with gate or sinks")
        if self.logit_cap is not None:
            require_positive(self, "logit_cap")
        require_between(self, "query_growth", 0, float("inf"), below_high=True)
        if self.query_growth:
            plain = not (self.late_qk_norm or self.gate or self.sinks)
            require(plain, f"query_growth={self.query_growth} must be 0 with late_qk_norm, gate or sinks")
            long = hasattr(parse_rope_scaling(self.rope_scaling), "original")
            message = f"query_growth={self.query_growth} must be 0 with rope_scaling={self.rope_scaling!r}"
            require(long, f"{message}, which has no original")
        require_rope_scaling(self, require_rotary_fraction(self, rotated=rotated))


@register_model("llama")
class Llama(Decoder):
    """Blocks of attention with rotary positions and SwiGLU."""

    config_class = LlamaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embedding_norm = self.make_norm(config) if config.embedding_norm else None

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        x_BTD = self.tokens(idx_BT)
        return x_BTD if self.embedding_norm is None else self.embedding_norm(x_BTD)

    def make_norm(self, config: Any) -> RMSNorm:
        return RMSNorm(config.d_model, config.norm_eps, weight=config.norm_weight)

    def make_head(self, config: Any) -> nn.Module:
        head = super().make_head(config)
        return head if config.logit_cap is None else CappedHead(head, config.logit_cap)

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, KINDS)[layer]
        layers = (self.make_attention(config, kind), self.make_mlp(config))
        if config.post_norms:
            return Stack(Residual(self.make_norm(config), inner, self.make_norm(config)) for inner in layers)
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_mlp(self, config: Any) -> MLP:
        """Returns the feed-forward layer of one block."""
        if config.mlp == "swiglu":
            return MLP(config.d_model, config.d_ff, bias=config.mlp_bias)
        activation = XIELU() if config.mlp == "xielu" else squared_relu
        return MLP(config.d_model, config.d_ff, activation, gated=False, bias=config.mlp_bias)

    def make_attention(self, config: Any, kind: str) -> Attention:
        """Returns attention of a kind in the pattern."""
        options: dict[str, Any] = {"n_kv_heads": config.n_kv_heads, "head_dim": config.head_dim}
        scaling: Any = parse_rope_scaling(config.rope_scaling)
        if kind not in UNROTATED:
            options["rope"] = Rope(config.rope_theta, config.rotary_fraction, scaling)
        if kind in WINDOWS:
            options["window"] = config.window
        head_norm = each_head(partial(RMSNorm, eps=config.norm_eps, weight=config.norm_weight))
        if config.qk_norm:
            options["qk_norm"] = head_norm
        if config.attention_bias != "none":
            options |= {"bias": True, "out_bias": config.attention_bias == "all"}
        if config.late_qk_norm:
            return LateNormAttention(config.d_model, config.n_heads, late_norm=head_norm, **options)
        if config.query_growth:
            growing = {"growth": config.query_growth, "length": scaling.original}
            return GrowingAttention(config.d_model, config.n_heads, **growing, **options)
        if config.gate:
            return GatedAttention(config.d_model, config.n_heads, sinks=config.sinks, **options)
        if config.sinks:
            return ScoredAttention(config.d_model, config.n_heads, sinks=True, **options)
        return Attention(config.d_model, config.n_heads, **options)
