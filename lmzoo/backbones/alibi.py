"""ALiBi (Press et al. 2021, arXiv 2108.12409): GPT-2's blocks without position embeddings.

Each head subtracts from its scores a multiple of the distance between query and key. Distinctive: nothing is added to
the tokens and nothing is learned, so the model reads texts longer than its training context; the multiples differ from
head to head, so some heads look near and some far. With `embedding_norm` it is BLOOM (BigScience 2022, arXiv
2211.05100); without biases and with the exact GELU it is MPT (MosaicML 2023). With `positions="none"` the causal mask
alone tells the order (NoPE, Haviv et al. 2022, arXiv 2203.16634; Kazemnejad et al. 2023, arXiv 2305.19466). Initial
values as in GPT-2: N(0, 0.02²); the projections into the residual stream are scaled by 1/sqrt(2 n_layers). Deviations:
the paper's models have sublayers and initial values of fairseq.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context
from lmzoo.layers.init import normal
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.layers.stack import Residual, Stack
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class AlibiConfig(DecoderConfig):
    """ALiBi's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"bias": False, "activation": "gelu", "positions": "none"},)

    n_heads: int = 4  # attention heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    positions: Literal["alibi", "none"] = "alibi"  # a bias on the scores that grows with the distance, or nothing
    embedding_norm: bool = False  # a norm after the token embedding, as in BLOOM
    bias: bool = True  # linear layers and norms have a bias
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"  # the exact GELU, or its tanh form
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "d_ff")
        require_heads(self, rotated=False)


@register_model("alibi")
class Alibi(Decoder):
    """Blocks of attention with ALiBi and a feed-forward layer with GELU."""

    config_class = AlibiConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embedding_norm = self.make_norm(config) if config.embedding_norm else None

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        x_BTD = self.tokens(idx_BT)
        return x_BTD if self.embedding_norm is None else self.embedding_norm(x_BTD)

    def block(self, config: Any, layer: int) -> Stack:
        d_model, n_heads = config.d_model, config.n_heads
        init_out = normal(0.02 / math.sqrt(2 * config.n_layers))
        if config.positions == "alibi":
            attention = ScoredAttention(d_model, n_heads, alibi=True, bias=config.bias, init_out=init_out)
        else:
            attention = Attention(d_model, n_heads, bias=config.bias, init_out=init_out)
        activation = F.gelu if config.activation == "gelu" else gelu_tanh
        mlp = MLP(d_model, config.d_ff, activation, gated=False, bias=config.bias, init_down=init_out)
        return Stack(Residual(self.make_norm(config), inner) for inner in (attention, mlp))

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps, bias=config.bias)
