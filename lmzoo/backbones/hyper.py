"""Hyper-connections (Zhu et al. 2024, arXiv 2409.19606): several residual streams instead of one.

Llama's layers, each connected to `n_streams` copies of the residual (`lmzoo.layers.hyper_connection`). Distinctive:
every layer learns from which streams it reads, to which it writes, and how the streams are mixed, also depending on
the token; so layers can be arranged one after another or side by side. With `sinkhorn`, manifold-constrained
hyper-connections (Xie et al. 2025, mHC, arXiv 2512.24880): the mixture is doubly stochastic, so signals neither grow
nor vanish over many layers. Streams start as copies of the embedding and are added up before the final norm.
Deviations: no smaller initial output weights; the initial weights of mHC are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_at_most, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, MixerConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.hyper_connection import HyperConnection, ManifoldHyperConnection, Streams, SumStreams
from lmzoo.layers.mlp import MLP
from lmzoo.layers.stack import Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class HyperConfig(MixerConfig):
    """The sizes and options of hyper-connections, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"sinkhorn": 20}, {"n_streams": 2, "sinkhorn": 3})

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    n_streams: int = 4  # residual streams
    sinkhorn: int | None = None  # iterations that make the mixture doubly stochastic (mHC); None: not constrained

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        require_positive(self, "rope_theta", "n_streams")
        require_at_most(self, 64, "n_streams")
        if self.sinkhorn is not None:
            require_positive(self, "sinkhorn")
            require_at_most(self, 1000, "sinkhorn")


@register_model("hyper")
class Hyper(Decoder):
    """Attention and SwiGLU on several residual streams."""

    config_class = HyperConfig
    config: HyperConfig

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.tokens(idx_BT)[:, :, None].expand(-1, -1, self.config.n_streams, -1)

    def block(self, config: Any, layer: int) -> Stack:
        rope = Rope(config.rope_theta)
        attention = Attention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, rope=rope)
        inner = (attention, MLP(config.d_model, config.d_ff))
        layers: list[nn.Module] = [self.connect(config, 2 * layer + i, part) for i, part in enumerate(inner)]
        if layer == config.n_layers - 1:
            layers.append(SumStreams())
        return Stack(layers)

    def connect(self, config: Any, index: int, inner: nn.Module) -> Streams:
        """Returns the layer number `index` of the model, connected to the streams."""
        sizes, norm = (config.d_model, config.n_streams), self.make_norm(config)
        if config.sinkhorn is None:
            return HyperConnection(*sizes, norm, inner, index=index, norm_eps=config.norm_eps)
        options = {"index": index, "norm_eps": config.norm_eps}
        return ManifoldHyperConnection(*sizes, norm, inner, iterations=config.sinkhorn, **options)
