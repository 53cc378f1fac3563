"""Granite (IBM 2024, arXiv 2405.04324 and the configurations of Granite 3): Llama with four multipliers.

Distinctive: embeddings, attention scores, branches and logits are multiplied by constants, so that settings found on a
small model hold for a large one (maximal update parametrization, Yang et al. 2022, arXiv 2203.03466). Options: experts
(`n_experts`), with a plain layer beside them for all tokens (`d_shared`); in Granite 4 most layers are Mamba-2, and
attention needs no positions: `pattern = "mamba2*9 nope"`; HyperCLOVA X has a norm after each branch too (`post_norms`);
MiniCPM3 (the configuration of openbmb/MiniCPM3-4B) has DeepSeek's latent attention: `pattern = "latent"`.
Initial values as in the published configurations (`initializer_range`): N(0, 0.02²) for all matrices but Mamba-2's,
which are those of its authors. Deviations: query, key and value share one projection; so do gate and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import (
    require,
    require_between,
    require_experts,
    require_heads,
    require_inner_heads,
    require_positive,
    require_step_sizes,
    set_default,
)
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.experts import Experts
from lmzoo.layers.latent_attention import LatentAttention
from lmzoo.layers.layer import Layer
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scale import Scale
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

MIXERS = ("rope", "nope", "mamba2", "latent")


@dataclass(frozen=True, kw_only=True)
class GraniteConfig(DecoderConfig):
    """Granite's sizes and multipliers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"attention_bias": True, "rope_scaling": "linear factor=2", "post_norms": True},
        {"n_experts": 4, "d_shared": 12},
        {"pattern": "mamba2 nope", "n_experts": 4, "balance_loss": 0.1, "dt_min": 0.02, "dt_max": 0.05},
        {"pattern": "latent rope", "q_rank": 12, "rope_scaling": "yarn factor=2 original=8", "attention_scale": 0.3},
    )

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    d_ff: int | None = None  # width of a feed-forward layer or an expert; None: 8/3 d_model, up to a multiple of 32
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "yarn factor=4 original=4096" (lmzoo.layers.rope_scaling)
    attention_bias: bool = False  # attention projections have biases
    embedding_scale: float = 12.0  # factor of the embeddings
    attention_scale: float | None = None  # factor of the products of queries and keys; None: n_heads / d_model
    residual_scale: float = 0.22  # factor of what a layer adds
    post_norms: bool = False  # a norm after each branch too
    logit_divisor: float = 4.0  # the logits are divided by it
    tie_embeddings: bool = True  # the head uses the weights of the token embedding
    pattern: str = "rope"  # mixers, repeated: attention with positions ("rope") or without ("nope"), "latent", "mamba2"
    q_rank: int | None = None  # features through which "latent" projects queries; None: they are projected directly
    kv_rank: int = 64  # features that "latent" caches for the keys and values of all heads
    nope_dim: int = 32  # features of a query and key of "latent" without position
    rope_dim: int = 16  # rotated features of a query and key of "latent"; all heads share those of the keys
    v_dim: int = 32  # features of a value of "latent"
    n_experts: int = 0  # experts of each layer in place of a plain feed-forward layer; 0: none
    top_k: int = 2  # experts for each token
    d_shared: int = 0  # width of a plain feed-forward layer beside the experts; 0: none
    balance_loss: float = 0.001  # coefficient of the experts' balance loss
    d_state: int = 64  # states per channel of "mamba2"
    d_conv: int = 4  # length of the filters of "mamba2"
    expand: int = 2  # inner width of "mamba2", divided by d_model
    ssm_bias: bool = False  # the projections of "mamba2" have biases
    ssm_conv_bias: bool = True  # the convolution of "mamba2" has a bias
    dt_min: float = 0.0  # least step size of "mamba2"
    dt_max: float | None = None  # greatest step size of "mamba2"; None: no limit
    ssm_head_dim: int | None = None  # width of a head of "mamba2"; None: d_model / n_heads
    ssm_groups: int = 1  # groups of heads of "mamba2" that share input and output maps

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        kinds = {*pattern(self.pattern, self.n_layers, MIXERS)}
        if kinds == {"latent"}:  # its heads have widths of their own
            require_positive(self, "n_heads")
        else:
            require_heads(self, rotated="rope" in kinds)
        set_default(self, "attention_scale", self.n_heads / self.d_model)
        set_default(self, "ssm_head_dim", max(1, self.d_model // self.n_heads))
        require_positive(self, "d_ff", "rope_theta", "embedding_scale", "attention_scale", "residual_scale")
        require_positive(self, "logit_divisor", "top_k", "d_state", "d_conv", "expand", "ssm_head_dim", "ssm_groups")
        for size in ("n_experts", "d_shared", "balance_loss"):
            require_between(self, size, 0, float("inf"), below_high=True)
        if self.n_experts:
            require_experts(self)
        if "mamba2" in kinds:
            require_inner_heads(self, "ssm_head_dim", "ssm_groups")
        require_step_sizes(self)
        if "rope" in kinds:
            require_rope_scaling(self, self.d_model / self.n_heads)
        require_positive(self, "kv_rank", "nope_dim", "rope_dim", "v_dim")
        if self.q_rank is not None:
            require_positive(self, "q_rank")
        if "latent" in kinds:
            require(self.rope_dim % 2 == 0, f"rope_dim={self.rope_dim} must be even to be rotated")
            require_rope_scaling(self, self.rope_dim)


@register_model("granite")
class Granite(Decoder):
    """Blocks of attention or Mamba-2, and of SwiGLU or experts, whose outputs are scaled."""

    config_class = GraniteConfig

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        config: Any = self.config
        return config.embedding_scale * self.tokens(idx_BT)

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, MIXERS)[layer]
        layers = (self.make_mixer(config, kind), self.make_feed_forward(config))
        return Stack(Residual(self.make_norm(config), inner, self.make_after(config)) for inner in layers)

    def make_after(self, config: Any) -> nn.Module:
        """Returns the module after a branch."""
        scale = Scale(config.residual_scale)
        return nn.Sequential(self.make_norm(config), scale) if config.post_norms else scale

    def make_mixer(self, config: Any, kind: str) -> Layer:
        """Returns the mixer of a kind in the pattern."""
        if kind == "mamba2":
            return self.make_mamba(config)
        return self.make_latent(config) if kind == "latent" else self.make_attention(config, kind)

    def make_attention(self, config: Any, kind: str) -> Attention:
        """Returns attention of a kind in the pattern."""
        rope = Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling))
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            rope=rope if kind == "rope" else None,
            scale=config.attention_scale,
            bias=config.attention_bias,
        )

    def make_latent(self, config: Any) -> LatentAttention:
        """Returns latent attention of one block."""
        return LatentAttention(
            config.d_model,
            config.n_heads,
            q_rank=config.q_rank,
            kv_rank=config.kv_rank,
            nope_dim=config.nope_dim,
            rope_dim=config.rope_dim,
            v_dim=config.v_dim,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)),
            sharpness=config.attention_scale * math.sqrt(config.nope_dim + config.rope_dim),
        )

    def make_mamba(self, config: Any) -> Mamba2:
        """Returns Mamba-2 of one block."""
        return Mamba2(
            config.d_model,
            d_state=config.d_state,
            head_dim=config.ssm_head_dim,
            n_groups=config.ssm_groups,
            d_conv=config.d_conv,
            expand=config.expand,
            bias=config.ssm_bias,
            conv_bias=config.ssm_conv_bias,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            norm_eps=config.norm_eps,
        )

    def make_feed_forward(self, config: Any) -> nn.Module:
        """Returns the feed-forward layer or the experts of one block."""
        if not config.n_experts:
            return MLP(config.d_model, config.d_ff)
        sizes = (config.d_model, config.d_ff, config.n_experts, config.top_k)
        experts = Experts(*sizes, balance_loss=config.balance_loss)
        return Branches(experts, MLP(config.d_model, config.d_shared)) if config.d_shared else experts

    def make_head(self, config: Any) -> nn.Module:
        return Scale(1 / config.logit_divisor, super().make_head(config))
