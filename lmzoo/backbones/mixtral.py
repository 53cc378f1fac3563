"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): Llama with a mixture of experts as its feed-forward layer.

Distinctive: a router sends each token to two of eight SwiGLU layers, so a token uses a fraction of the parameters
(`num_params(active=True)`). Dropless: experts have no capacity limit, so a prediction never depends on other rows or on
later tokens. Training adds Switch's balance loss, computed for each layer (the published code computes it over all
layers together); `balance_loss=0.0` with `balance_bias` uses the bias of DeepSeek-V3 instead. Qwen3-MoE (arXiv
2505.09388) and OLMoE (arXiv 2409.02060) are relatives with many small experts and norms of queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from lmzoo.configs import require, require_between, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.experts import Experts
from lmzoo.layers.mlp import swiglu_width
from lmzoo.layers.norm import AllHeadsRMSNorm, RMSNorm, each_head
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class MixtralConfig(DecoderConfig):
    """Mixtral's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"qk_norm": "head", "normalize": False}, {"qk_norm": "all"})

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    qk_norm: Literal["none", "head", "all"] = "none"  # queries and keys are normalized, by head or over all heads
    d_ff: int | None = None  # width of one expert; None: 8/3 d_model, rounded up to a multiple of 32
    n_experts: int = 8  # experts of each layer
    top_k: int = 2  # experts for each token
    normalize: bool = True  # the weights of the chosen experts sum to 1
    window: int | None = None  # tokens that each layer sees, the present one included; None: all
    rope_theta: float = 1e6  # base of the rotary wavelengths
    balance_loss: float = 0.02  # coefficient of the balance loss; 0 turns it off
    balance_bias: bool = False  # balance by a bias added when experts are chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=self.head_dim is None)
        if self.head_dim is not None:
            require_positive(self, "head_dim")
            require(self.head_dim % 2 == 0, f"head_dim={self.head_dim} must be even to be rotated")
        require_positive(self, "d_ff", "n_experts", "top_k", "rope_theta")
        require(self.top_k <= self.n_experts, f"top_k={self.top_k} must be at most n_experts={self.n_experts}")
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        if self.window is not None:
            require_positive(self, "window")


@register_model("mixtral")
class Mixtral(Decoder):
    """Blocks of attention with rotary positions and experts."""

    config_class = MixtralConfig

    def block(self, config: Any, layer: int) -> Stack:
        norms = {"head": each_head(partial(RMSNorm, eps=config.norm_eps))}
        norms["all"] = partial(AllHeadsRMSNorm, eps=config.norm_eps)
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            window=config.window,
            rope=Rope(config.rope_theta),
            qk_norm=norms.get(config.qk_norm),
        )
        experts = Experts(
            config.d_model,
            config.d_ff,
            config.n_experts,
            config.top_k,
            normalize=config.normalize,
            balance_loss=config.balance_loss,
            balance_bias=config.balance_bias,
        )
        return Stack(Residual(self.make_norm(config), inner) for inner in (attention, experts))
