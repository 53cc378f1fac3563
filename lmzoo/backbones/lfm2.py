"""LFM2 (Liquid AI 2025, arXiv 2511.23404): short convolutions between two gates, and few layers of attention.

Distinctive: most mixers see three tokens only (`lmzoo.layers.double_gated_conv`), which is fast on small devices and
has almost no state; the fewer layers of attention have few heads of keys and values, and norms of queries and keys.
Feed-forward layers are SwiGLU, or in LFM2-8B-A1B experts in all blocks but the first two, chosen by sigmoids as in
DeepSeek-V3 (`feed_forward = "experts"`). Initial values: N(0, 0.02²) for all matrices. Deviations: query, key and value
share one projection; so do gate and up; filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import require_between, require_experts, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.double_gated_conv import DoubleGatedConv
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import RMSNorm, each_head
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.shared_experts import SharedExperts
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

MIXERS = ("conv", "attention")
FEED_FORWARDS = ("mlp", "experts")


@dataclass(frozen=True, kw_only=True)
class LFM2Config(DecoderConfig):
    """LFM2's patterns and sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_expert": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "attention conv", "feed_forward": "experts mlp", "rope_scaling": "linear factor=2"},
        {"feed_forward": "experts", "balance_bias": False, "normalize": False},
    )

    pattern: str = "conv*2 attention"  # mixers from bottom to top, repeated up to n_layers
    feed_forward: str = "mlp"  # feed-forward layers from bottom to top, repeated: "mlp" or "experts"
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    d_ff: int | None = None  # width of "mlp"; None: 8/3 d_model, rounded up to a multiple of 32
    rope_theta: float = 1e6  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "yarn factor=4 original=4096" (lmzoo.layers.rope_scaling)
    d_conv: int = 3  # length of the convolution's filters
    d_expert: int | None = None  # width of one expert; None: a quarter of d_ff
    n_experts: int = 8  # experts of each layer "experts"
    top_k: int = 2  # experts chosen for each token
    normalize: bool = True  # the weights of the chosen experts sum to routed_scale
    routed_scale: float = 1.0  # factor of the chosen experts
    balance_loss: float = 1e-4  # coefficient of the balance loss; 0 turns it off
    balance_bias: bool = True  # balance by a bias added when experts are chosen
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        pattern(self.pattern, self.n_layers, MIXERS)
        pattern(self.feed_forward, self.n_layers, FEED_FORWARDS, name="feed_forward")
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "d_ff", "rope_theta", "d_conv")
        set_default(self, "d_expert", max(1, (self.d_ff or 4) // 4))
        require_positive(self, "d_expert", "n_experts", "top_k", "routed_scale")
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        require_experts(self)
        require_rope_scaling(self, self.head_dim or self.d_model // self.n_heads)


@register_model("lfm2")
class LFM2(Decoder):
    """Blocks of a convolution or attention, and SwiGLU or experts."""

    config_class = LFM2Config

    def block(self, config: Any, layer: int) -> Stack:
        mixer = pattern(config.pattern, config.n_layers, MIXERS)[layer]
        feed_forward = pattern(config.feed_forward, config.n_layers, FEED_FORWARDS)[layer]
        layers = (
            DoubleGatedConv(config.d_model, config.d_conv) if mixer == "conv" else self.make_attention(config),
            MLP(config.d_model, config.d_ff) if feed_forward == "mlp" else self.make_experts(config),
        )
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_attention(self, config: Any) -> Attention:
        """Returns the attention of one block."""
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)),
            qk_norm=each_head(partial(RMSNorm, eps=config.norm_eps)),
        )

    def make_experts(self, config: Any) -> nn.Module:
        """Returns the experts of one block; 1e-6 is added to the sum by which their weights are divided."""
        return SharedExperts(
            config.d_model,
            config.d_expert,
            config.n_experts,
            config.top_k,
            n_shared=0,
            normalize=config.normalize,
            share_eps=1e-6,
            scale=config.routed_scale,
            balance_loss=config.balance_loss,
            balance_bias=config.balance_bias,
        )
