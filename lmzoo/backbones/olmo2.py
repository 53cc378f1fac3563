"""OLMo 2 (Team OLMo 2024, arXiv 2501.00656): Llama with norms after the branches instead of before; and OLMo Hybrid.

Distinctive: attention and feed-forward layer read the residual stream as it is, and their outputs are normalized before
they are added, which keeps the stream small and training stable; queries and keys are normalized too, each over all
heads together. Initial values as in the paper: N(0, 0.02²) for all weights. In OLMo Hybrid (arXiv 2604.03444) most
layers are the gated delta rule instead (`lmzoo.layers.gated_delta`), with norms before the branches, and attention
needs no positions: `pattern = "delta*3 nope"`. OLMo 3 (arXiv 2512.13961) has windows in three of four layers, whose
rotations `rope_scaling` leaves as they are: `pattern = "local*3 rope"`. EXAONE 4.0 (arXiv 2507.11407) normalizes the
queries and keys of each head, and rotates in layers with a window alone: `pattern = "window*3 nope"`. Deviations:
query, key and value share one projection; so do gate and up; the z-loss of the paper's training is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmzoo.configs import require_divides, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import qk_norm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

WINDOWS = ("window", "local")
KINDS = ("rope", "nope", *WINDOWS, "delta")


@dataclass(frozen=True, kw_only=True)
class OLMo2Config(DecoderConfig):
    """OLMo 2's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "key_dim": 2, "value_dim": 4, "d_ff": 8}

    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "delta nope"},
        {"pattern": "delta rope", "rope_scaling": "yarn factor=2 original=8"},
        {"pattern": "local rope", "window": 5, "rope_scaling": "linear factor=3"},
        {"pattern": "window nope", "window": 5, "rope_scaling": "linear factor=3", "qk_norm": "head", "head_dim": 6},
    )

    pattern: str = "rope"  # layers, repeated: attention "rope", "nope", "window" or "local" (not scaled), or "delta"
    n_heads: int = 4  # attention heads
    window: int = 64  # tokens that layers "window" and "local" see, the present one included
    qk_norm: Literal["all", "head"] = "all"  # queries and keys are normalized over all heads, or in each head
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head of attention; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    rope_theta: float = 500000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    norm_eps: float = 1e-6  # added to the variance in a normalization
    delta_heads: int | None = None  # heads of the delta rule; None: as many as n_heads
    delta_key_heads: int | None = None  # heads of queries and keys of the delta rule; None: as many as delta_heads
    key_dim: int | None = None  # width of a key of the delta rule; None: 3/4 of d_model / delta_key_heads, rounded down
    value_dim: int | None = None  # width of a value of the delta rule; None: 2 key_dim
    d_conv: int = 4  # length of the delta rule's filters
    negative_eigenvalues: bool = True  # the strength of a write to the delta rule's memory is up to 2 instead of 1

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "n_kv_heads", self.n_heads)
        kinds = pattern(self.pattern, self.n_layers, KINDS)
        require_heads(self, rotated=not {*kinds} <= {"nope", "delta"})
        set_default(self, "delta_heads", self.n_heads)
        set_default(self, "delta_key_heads", self.delta_heads)
        require_positive(self, "window", "d_ff", "rope_theta", "delta_heads", "delta_key_heads", "d_conv")
        require_divides(self, "delta_key_heads", "delta_heads")
        default = max(1, 3 * self.d_model // (4 * (self.delta_key_heads or 1)))
        set_default(self, "value_dim", 2 * (self.key_dim or default))
        set_default(self, "key_dim", default)
        require_positive(self, "key_dim", "value_dim")
        require_rope_scaling(self, self.head_dim or self.d_model // self.n_heads)


@register_model("olmo2")
class OLMo2(Decoder):
    """Blocks of attention and SwiGLU, each followed by its norm, or of the gated delta rule and SwiGLU after norms."""

    config_class = OLMo2Config

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, KINDS)[layer]
        mlp = MLP(config.d_model, config.d_ff)
        if kind == "delta":
            layers = (self.make_delta(config), mlp)
            return Stack(Residual(self.make_norm(config), inner) for inner in layers)
        rope = Rope(config.rope_theta, scaling=None if kind == "local" else parse_rope_scaling(config.rope_scaling))
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            window=config.window if kind in WINDOWS else None,
            rope=None if kind == "nope" else rope,
            qk_norm=qk_norm(config.qk_norm, config.norm_eps),
        )
        return Stack(Residual(None, inner, after=self.make_norm(config)) for inner in (attention, mlp))

    def make_delta(self, config: Any) -> GatedDelta:
        """Returns the gated delta rule; the norm of its output has the epsilon 1e-5 in OLMo Hybrid."""
        return GatedDelta(
            config.d_model,
            config.delta_heads,
            config.key_dim,
            config.value_dim,
            n_key_heads=config.delta_key_heads,
            d_conv=config.d_conv,
            negative_eigenvalues=config.negative_eigenvalues,
        )
