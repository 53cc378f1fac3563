"""xLSTM (Beck et al. 2024, arXiv 2405.04517): LSTMs with exponential gates, with a matrix or a scalar memory.

Distinctive: two kinds of blocks in a pattern (`lmzoo.layers.xlstm`). An mLSTM block has a matrix memory that is written
like attention's keys and values and computed in parallel; it is its own feed-forward layer. An sLSTM block has scalar
cells whose gates read the last output, which needs a loop over time but can track states; a gated feed-forward layer
follows. Exponential input gates can replace what is stored; a running maximum keeps them finite. Norms have no bias.
Deviations: the maximum of an empty memory is -infinity in effect, where the authors' step starts from 0 (the same up
to their epsilon of 1e-6); convolution filters get no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal, small_init
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.stack import Residual, Stack
from lmzoo.layers.xlstm import MLSTM, SLSTM
from lmzoo.model import Traits
from lmzoo.registry import register_model

BLOCKS = ("mlstm", "slstm")


@dataclass(frozen=True, kw_only=True)
class XLSTMConfig(DecoderConfig):
    """xLSTM's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"pattern": "mlstm"}, {"pattern": "slstm"})

    pattern: str = "mlstm*3 slstm"  # blocks from bottom to top, repeated up to n_layers
    n_heads: int = 4  # heads, each with a memory of its own
    d_ff: int | None = None  # width of the feed-forward layer of an sLSTM block; None: 4/3 d_model, a multiple of 8
    expand: int = 2  # inner width of an mLSTM block / d_model
    d_conv: int = 4  # length of the convolution's filters
    qkv_block: int = 4  # features in a block of the block-diagonal maps to queries, keys and values

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", -(-4 * self.d_model // 24) * 8)
        require_heads(self, rotated=False)
        require_positive(self, "d_ff", "expand", "d_conv", "qkv_block")
        inner = self.expand * self.d_model
        require(inner % self.qkv_block == 0, f"qkv_block={self.qkv_block} must divide expand * d_model = {inner}")
        pattern(self.pattern, self.n_layers, BLOCKS)


@register_model("xlstm")
class XLSTM(Decoder):
    """Blocks of mLSTM, and of sLSTM with a feed-forward layer."""

    config_class = XLSTMConfig

    @property
    def traits(self) -> Traits:
        # The features have variance 1, so small_init gives logits of variance 2/5, and a loss 0.2 nats above ln V.
        return replace(super().traits, uniform_at_start=False)

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=small_init(config.d_model))

    def block(self, config: Any, layer: int) -> Stack:
        d_model, n_layers = config.d_model, config.n_layers
        init_out = normal(2 / (n_layers * math.sqrt(d_model)))
        options = {"d_conv": config.d_conv, "norm_eps": config.norm_eps}
        layers: list[nn.Module]
        if pattern(config.pattern, n_layers, BLOCKS)[layer] == "mlstm":
            sizes = {"expand": config.expand, "qkv_block": config.qkv_block}
            layers = [MLSTM(d_model, config.n_heads, init_out=init_out, **sizes, **options)]
        else:
            cells = SLSTM(d_model, config.n_heads, depth=layer / max(1, n_layers - 1), **options)
            layers = [cells, MLP(d_model, config.d_ff, F.gelu, init=small_init(d_model), init_down=init_out)]
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps, bias=False)

    def make_head(self, config: Any) -> nn.Module:
        return make_head(self.tokens, tied=config.tie_embeddings, init=small_init(config.d_model))
