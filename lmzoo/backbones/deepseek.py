"""DeepSeek-V2 and V3 (DeepSeek-AI 2024, arXiv 2405.04434 and 2412.19437): a compressed cache, and many small experts.

Blocks of latent attention (`lmzoo.layers.latent_attention`) and experts (`lmzoo.layers.shared_experts`); the first
`n_dense` blocks have a plain SwiGLU. Distinctive: the cache holds one short vector per token, from which all heads'
keys and values are computed, and decoding reads it as it is; experts are small and many, and some read every token;
their load is balanced by biases instead of a strong auxiliary loss. The defaults are V3's routing; V2 has
`sigmoid=False`, `normalize=False` and `balance_bias=False`. The published configurations start from N(0, 0.02²).
In Kimi Linear (arXiv 2510.26692) each fourth block has latent attention without positions, and the others have a delta
rule with decays (`lmzoo.layers.kda`): `pattern = "kda*3 nope"`. Relatives have V3's experts, and attention with grouped
queries: dots.llm1 (arXiv 2506.05767), GLM-4.5 (arXiv 2508.06471), MiniMax-M2: `pattern = "grouped"`; K-EXAONE
(arXiv 2601.01739) has windows in three of four layers and no positions in the others: `"window*3 grouped_nope"`. So
have Flint (Recursive 2026) with sinks, Kolibri 1 (Aleph Alpha 2026) with norms after the branches too, and Trinity
(Arcee 2025) with these and gates.
Deviations: no prediction of further tokens (V3 trains with one); rotary pairs are halves and not neighbors; the balance
loss is computed over a batch and not per sequence; the biases are moved by the optimizer (`lmzoo.layers.experts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lmzoo.configs import require, require_between, require_divides, require_experts, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.kda import KDA
from lmzoo.layers.late_norm_attention import LateNormAttention
from lmzoo.layers.latent_attention import LatentAttention
from lmzoo.layers.layer import Layer
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import RMSNorm, each_head, qk_norm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.shared_experts import SharedExperts, best_of_group
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

GROUPED = ("grouped", "grouped_nope", "window")
MIXERS = ("rope", "nope", "kda", *GROUPED)


@dataclass(frozen=True, kw_only=True)
class DeepSeekConfig(DecoderConfig):
    """DeepSeek's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8, "d_expert": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"q_rank": 12, "n_groups": 4, "top_groups": 1, "rope_scaling": "yarn factor=4 original=8", "sharpness": 1.5},
        {"sigmoid": False, "normalize": False, "balance_bias": False, "n_groups": 4, "top_groups": 1, "n_shared": 0},
        {"pattern": "kda nope"},
        {"pattern": "grouped rope", "qk_norm": "head", "attention_bias": "qkv", "rotary_fraction": 0.5, "n_shared": 0},
        {"pattern": "window grouped_nope", "window": 5, "qk_norm": "late"},
        {"pattern": "window grouped", "window": 5, "sinks": True, "by_logit": True, "n_groups": 4, "top_groups": 2},
        {"pattern": "grouped_nope", "gate": True, "sinks": True, "post_norms": True, "embedding_scale": 4.0},
    )

    pattern: str = "rope"  # mixers, repeated: latent ("rope", "nope"), "kda", "grouped", "grouped_nope", "window"
    norm_eps: float = 1e-6  # added to the variance in a normalization
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values of "grouped"; None: as many as n_heads
    window: int = 64  # tokens that layers "window" see, the present one included; they are "grouped" otherwise
    head_dim: int | None = None  # width of a head of "grouped"; None: d_model / n_heads
    rotary_fraction: float = 1.0  # share of the features of a head of "grouped" that is rotated: the first ones
    qk_norm: Literal["none", "head", "all", "late"] = "none"  # norms of "grouped": by head, of all, after the rotation
    attention_bias: Literal["none", "qkv", "all"] = "none"  # projections of "grouped" with a bias
    sinks: bool = False  # a learned score for each head of "grouped" that takes attention away from all keys
    gate: bool = False  # a gate on the output of "grouped"
    q_rank: int | None = None  # features through which queries are projected; None: they are projected directly
    latent_eps: float = 1e-6  # added to the variance in the norms of projected queries, and of keys and values
    kv_rank: int = 64  # cached features for the keys and values of all heads
    nope_dim: int = 32  # features of a query and key without position
    rope_dim: int = 16  # rotated features of a query and key; the keys' are cached and shared by all heads
    v_dim: int = 32  # features of a value
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "yarn factor=40 original=4096" (lmzoo.layers.rope_scaling)
    sharpness: float = 1.0  # factor of the attention scores, for longer texts
    kda_heads: int | None = None  # heads of "kda"; None: as many as n_heads
    kda_dim: int = 32  # width of a key and of a value of "kda"
    d_conv: int = 4  # length of the filters of "kda"
    d_ff: int | None = None  # width of the plain feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    d_expert: int | None = None  # width of one expert; None: a quarter of d_ff
    n_dense: int = 1  # first blocks with a plain feed-forward layer
    n_experts: int = 8  # experts of each layer that are chosen
    n_shared: int = 1  # experts of each layer that read every token
    top_k: int = 2  # experts chosen for each token
    n_groups: int = 1  # groups of experts
    top_groups: int = 1  # groups from which the experts of a token are chosen
    group_best: int | None = None  # affinities in the score of a group; None: top_k / top_groups, one with a softmax
    sigmoid: bool = True  # affinities are sigmoids; False: a softmax
    by_logit: bool = False  # experts are chosen by logits and biases, not by affinities and biases
    normalize: bool = True  # the weights of the chosen experts sum to routed_scale
    routed_scale: float = 1.0  # factor of the chosen experts
    post_norms: bool = False  # a norm after each branch too
    embedding_scale: float = 1.0  # factor of the embeddings
    balance_loss: float = 1e-4  # coefficient of the balance loss; 0 turns it off
    balance_bias: bool = True  # balance by a bias added when experts are chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = pattern(self.pattern, self.n_layers, MIXERS)
        require_positive(self, "n_heads")  # before it gives a default
        set_default(self, "kda_heads", self.n_heads)
        require_positive(self, "kda_heads", "kda_dim", "d_conv", "window")
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "d_ff")
        set_default(self, "d_expert", max(1, (self.d_ff or 4) // 4))
        require_positive(self, "kv_rank", "nope_dim", "rope_dim", "v_dim", "rope_theta", "d_expert")
        set_default(self, "n_kv_heads", self.n_heads)
        require_positive(self, "n_kv_heads")
        require_divides(self, "n_kv_heads", "n_heads")
        require_between(self, "rotary_fraction", 0, 1)
        if {*kinds} & {*GROUPED}:
            if self.head_dim is None:
                require_divides(self, "n_heads", "d_model")
            set_default(self, "head_dim", self.d_model // self.n_heads)
            require_positive(self, "head_dim")
            width = int(self.rotary_fraction * (self.head_dim or 0) + 1e-6)
            even = f"rotary_fraction={self.rotary_fraction} of head_dim={self.head_dim} must be an even number"
            require(width % 2 == 0, even)
            require_rope_scaling(self, width)
        if "rope" in kinds:
            require_rope_scaling(self, self.rope_dim)
        require_positive(self, "latent_eps", "sharpness", "n_experts", "top_k", "n_groups", "top_groups")
        require_positive(self, "routed_scale", "embedding_scale")
        if self.q_rank is not None:
            require_positive(self, "q_rank")
        plain = not ((self.sinks or self.gate) and self.qk_norm == "late")
        require(plain, f"qk_norm={self.qk_norm!r} must be another with sinks or gate")
        require(self.rope_dim % 2 == 0, f"rope_dim={self.rope_dim} must be even to be rotated")
        for size in ("n_dense", "n_shared", "balance_loss"):
            require_between(self, size, 0, float("inf"), below_high=True)
        set_default(self, "group_best", best_of_group(self.top_k, self.top_groups, sigmoid=self.sigmoid))
        require_experts(self, groups="n_groups")


@register_model("deepseek")
class DeepSeek(Decoder):
    """Blocks of latent attention and shared and chosen experts."""

    config_class = DeepSeekConfig

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, MIXERS)[layer]
        mixer = self.make_mixer(config, kind)
        feed_forward = MLP(config.d_model, config.d_ff) if layer < config.n_dense else self.experts(config)
        layers = (mixer, feed_forward)
        return Stack(Residual(self.make_norm(config), inner, self.make_after(config)) for inner in layers)

    def make_after(self, config: Any) -> nn.Module | None:
        """Returns the norm after a branch, if there is one."""
        return self.make_norm(config) if config.post_norms else None

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        config: Any = self.config
        return config.embedding_scale * self.tokens(idx_BT)

    def make_mixer(self, config: Any, kind: str) -> Layer:
        """Returns the mixer of a kind in the pattern."""
        if kind == "kda":
            return self.make_kda(config)
        return self.make_grouped(config, kind) if kind in GROUPED else self.make_latent(config, kind)

    def make_kda(self, config: Any) -> KDA:
        """Returns the delta rule of one block."""
        return KDA(config.d_model, config.kda_heads, config.kda_dim, d_conv=config.d_conv, norm_eps=config.norm_eps)

    def make_grouped(self, config: Any, kind: str) -> Attention:
        """Returns attention with grouped queries, as relatives have it."""
        rope = Rope(config.rope_theta, config.rotary_fraction, parse_rope_scaling(config.rope_scaling))
        options: dict[str, Any] = {
            "n_kv_heads": config.n_kv_heads,
            "head_dim": config.head_dim,
            "window": config.window if kind == "window" else None,
            "rope": None if kind == "grouped_nope" else rope,
            "bias": config.attention_bias != "none",
            "out_bias": config.attention_bias == "all",
        }
        if config.qk_norm == "late":
            late_norm = each_head(partial(RMSNorm, eps=config.norm_eps))
            return LateNormAttention(config.d_model, config.n_heads, late_norm=late_norm, **options)
        options["qk_norm"] = qk_norm(config.qk_norm, config.norm_eps)
        if config.gate:
            return GatedAttention(config.d_model, config.n_heads, sinks=config.sinks, **options)
        return ScoredAttention(config.d_model, config.n_heads, sinks=config.sinks, **options)

    def make_latent(self, config: Any, kind: str) -> LatentAttention:
        """Returns the latent attention of one block. Without positions, the shared features of keys are not rotated."""
        rope = Rope(config.rope_theta, 1.0, parse_rope_scaling(config.rope_scaling))
        return LatentAttention(
            config.d_model,
            config.n_heads,
            q_rank=config.q_rank,
            kv_rank=config.kv_rank,
            nope_dim=config.nope_dim,
            rope_dim=config.rope_dim,
            v_dim=config.v_dim,
            rope=Rope(config.rope_theta, 0.0) if kind == "nope" else rope,
            sharpness=config.sharpness,
            norm_eps=config.latent_eps,
        )

    def experts(self, config: Any) -> SharedExperts:
        """Returns the experts of one block."""
        return SharedExperts(
            config.d_model,
            config.d_expert,
            config.n_experts,
            config.top_k,
            n_shared=config.n_shared,
            sigmoid=config.sigmoid,
            by_logit=config.by_logit,
            normalize=config.normalize,
            scale=config.routed_scale,
            n_groups=config.n_groups,
            top_groups=config.top_groups,
            group_best=config.group_best,
            balance_loss=config.balance_loss,
            balance_bias=config.balance_bias,
        )
