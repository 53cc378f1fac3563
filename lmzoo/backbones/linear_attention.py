"""The linear transformer (Katharopoulos et al. 2020, arXiv 2006.16236, "Transformers are RNNs").

A transformer whose attention weights are phi(q) . phi(k) instead of exp(q . k) (`lmzoo.layers.linear_attention`).
Distinctive: such a sum can be computed as a recurrence with a matrix for each head, so decoding needs constant time and
memory per token; it is the ancestor of RetNet, GLA and DeltaNet, which add decays and corrections. Positions are
sinusoids added to the embedding (Vaswani et al. 2017, arXiv 1706.03762), as nothing else knows the order.

Deviations: the norm is before each layer instead of after it; the sinusoids are as small as the embeddings; no dropout
and no biases outside the norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

POSITION_SCALE = 0.02  # of the sinusoids; token embeddings begin at N(0, 0.02²)


@dataclass(frozen=True, kw_only=True)
class LinearTransformerConfig(DecoderConfig):
    """The sizes of the linear transformer, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # attention heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "d_ff")
        require_heads(self)


@register_model("linear_attention")
class LinearTransformer(Decoder):
    """Blocks of linear attention and a feed-forward layer."""

    config_class = LinearTransformerConfig

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        x_BTD = self.tokens(idx_BT)
        cos_TR, sin_TR = ctx.rope(Rope(), x_BTD.shape[-1])
        return x_BTD + POSITION_SCALE * torch.cat([sin_TR, cos_TR], dim=-1).to(x_BTD.dtype)

    def block(self, config: Any, layer: int) -> Stack:
        layers = (
            LinearAttention(config.d_model, config.n_heads),
            MLP(config.d_model, config.d_ff, F.gelu, gated=False),
        )
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps)
