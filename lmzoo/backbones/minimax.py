"""MiniMax-01 (MiniMax 2025, arXiv 2501.08313): lightning attention, one layer of attention in eight, and experts.

Distinctive: most layers are a linear attention with a fixed decay for each head (`lmzoo.layers.lightning_attention`),
whose state does not grow, so that contexts of a million tokens are possible; each eighth layer is attention with rotary
positions for half of the features. All feed-forward layers are experts. The residual stream is the normalized input of
a layer, `x = alpha norm(x) + beta layer(norm(x))`: post-norm, whose constants keep deep stacks stable (DeepNorm, Wang
et al. 2022, arXiv 2203.00555). Initial values: N(0, 0.02²) for all matrices. Deviations: query, key and value share
one projection; so do gate and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import require_between, require_experts, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.experts import Experts
from lmzoo.layers.lightning_attention import LightningAttention
from lmzoo.layers.mlp import swiglu_width
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling, require_rotary_fraction
from lmzoo.layers.scale import Scale
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

MIXERS = ("lightning", "attention")
FACTORS = ("alpha", "beta")  # of the normalized input of a layer, and of its output


@dataclass(frozen=True, kw_only=True)
class MiniMaxConfig(DecoderConfig):
    """MiniMax-01's pattern, sizes and constants, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "attention lightning", "rope_scaling": "linear factor=2", "head_dim": 6},
    )

    pattern: str = "lightning*3 attention"  # mixers from bottom to top, repeated up to n_layers
    n_heads: int = 4  # heads of both mixers
    n_kv_heads: int | None = None  # heads of keys and values in attention; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    rope_theta: float = 1e7  # base of the rotary wavelengths
    rotary_fraction: float = 0.5  # rotated share of a head's features: the first ones, rounded down to an even number
    rope_scaling: str = "none"  # for longer texts: "yarn factor=4 original=4096" (lmzoo.layers.rope_scaling)
    d_ff: int | None = None  # width of one expert; None: 8/3 d_model, rounded up to a multiple of 32
    n_experts: int = 4  # experts of each layer
    top_k: int = 2  # experts chosen for each token
    balance_loss: float = 0.02  # coefficient of the experts' balance loss
    attention_alpha: float = 3.5565588200778455  # factor of the normalized input of attention
    attention_beta: float = 1.0  # factor of the output of attention
    lightning_alpha: float = 3.5565588200778455  # factor of the normalized input of lightning attention
    lightning_beta: float = 1.0  # factor of the output of lightning attention
    mlp_alpha: float = 3.5565588200778455  # factor of the normalized input of the experts
    mlp_beta: float = 1.0  # factor of the output of the experts

    def __post_init__(self) -> None:
        super().__post_init__()
        mixers = pattern(self.pattern, self.n_layers, MIXERS)
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=False)
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "rope_theta", "d_ff", "n_experts", "top_k")
        require_experts(self)
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        require_positive(self, *(f"{part}_{factor}" for part in (*MIXERS, "mlp") for factor in FACTORS))
        require_rope_scaling(self, require_rotary_fraction(self, rotated="attention" in mixers))


@register_model("minimax")
class MiniMax(Decoder):
    """Blocks of lightning attention or attention, and experts; each adds to its normalized input."""

    config_class = MiniMaxConfig

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, MIXERS)[layer]
        mixer = self.make_attention(config) if kind == "attention" else self.make_lightning(config, layer)
        parts = ((kind, mixer), ("mlp", self.make_experts(config)))
        return Stack(module for name, inner in parts for module in self.sublayer(config, name, inner))

    def sublayer(self, config: Any, name: str, inner: nn.Module) -> list[nn.Module]:
        """Returns the modules of `alpha norm(x) + beta layer(norm(x))`."""
        alpha, beta = (getattr(config, f"{name}_{factor}") for factor in FACTORS)
        return [self.make_norm(config), Residual(None, inner, Scale(beta / alpha)), Scale(alpha)]

    def make_attention(self, config: Any) -> Attention:
        """Returns the attention of one block."""
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rope=Rope(config.rope_theta, config.rotary_fraction, parse_rope_scaling(config.rope_scaling)),
        )

    def make_lightning(self, config: Any, layer: int) -> LightningAttention:
        """Returns the lightning attention of one block; its decays are weaker in upper blocks."""
        steepness = 1 - layer / (config.n_layers - 1 + 1e-5) + 1e-5
        return LightningAttention(config.d_model, config.n_heads, head_dim=config.head_dim, steepness=steepness)

    def make_experts(self, config: Any) -> Experts:
        """Returns the experts of one block."""
        sizes = (config.d_model, config.d_ff, config.n_experts, config.top_k)
        return Experts(*sizes, balance_loss=config.balance_loss)
