"""GPT-Neo (Black et al. 2021, doi 10.5281/zenodo.5297715) and relatives of GPT-2: StarCoder, BioGPT, GPT-1.

GPT-2's blocks. Distinctive: every second layer sees a window of the last tokens alone; the products of queries and keys
are not divided by the square root of the head width; the projections to queries, keys and values have no biases.
StarCoder (Li et al. 2023, arXiv 2305.06161; SantaCoder, arXiv 2301.03988) has `pattern = "full"`, biases everywhere,
divided products, and one head of keys and values for all queries; BioGPT (Luo et al. 2022, arXiv 2210.10341) multiplies
the token embeddings by sqrt(d_model), and so does XGLM (Lin et al. 2021, arXiv 2112.10668), whose positions are sines:
`positions = "sines"`, which works beyond `context_length`. The first GPT (Radford et al. 2018) has its norms behind the
sums of residuals, and none before the head: `norm_sums`. Initial values as in the published configurations
(`initializer_range`): N(0, 0.02²) for all matrices. Deviations: query, key and value share one projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.sine_positions import SinePositions
from lmzoo.layers.stack import Residual, Stack
from lmzoo.model import Traits
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

KINDS = ("full", "window")
ACTIVATIONS = {"gelu_tanh": gelu_tanh, "gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True, kw_only=True)
class GPTNeoConfig(DecoderConfig):
    """GPT-Neo's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "full", "n_kv_heads": 1, "attention_bias": "all", "scaled_scores": True, "embedding_scale": 4.0},
        {"pattern": "window", "window": 5, "activation": "gelu", "tie_embeddings": False},
        {"positions": "sines", "embedding_scale": 4.0},
        {"norm_sums": True, "pattern": "full"},
    )

    positions: Literal["learned", "sines"] = "learned"  # a table of `context_length` rows, or sines and cosines
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    pattern: str = "full window"  # layers from bottom to top, repeated: "full", or "window": the last tokens
    window: int = 64  # tokens that layers "window" see, the present one included
    scaled_scores: bool = False  # products of queries and keys are divided by the square root of the head width
    attention_bias: Literal["out", "all"] = "out"  # attention projections with a bias: the last one, or all
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh"  # of the feed-forward layers
    embedding_scale: float = 1.0  # factor of the token embeddings
    norm_sums: bool = False  # norms of the sums of residuals, in place of those before branches and head
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        set_default(self, "n_kv_heads", self.n_heads)
        require_positive(self, "d_ff", "window", "embedding_scale")
        require_heads(self, rotated=False)
        even = self.positions == "learned" or (self.d_model % 2 == 0 and self.d_model > 2)
        require(even, f"d_model={self.d_model} must be even and above 2 with positions='sines'")
        pattern(self.pattern, self.n_layers, KINDS)


@register_model("gpt_neo")
class GPTNeo(Decoder):
    """Token and position embeddings, blocks of attention and a feed-forward layer."""

    config_class = GPTNeoConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.positions == "sines":
            self.positions: nn.Module = SinePositions(config.d_model, first=2)
        else:
            self.positions = Embedding(config.context_length, config.d_model)
        if config.norm_sums:
            self.norm = nn.Identity()  # the last block ends with a norm

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        config: Any = self.config
        x_BTD = config.embedding_scale * self.tokens(idx_BT)
        return x_BTD + self.positions(ctx.positions_T).to(x_BTD.dtype)

    @property
    def traits(self) -> Traits:
        return replace(super().traits, extrapolates=isinstance(self.positions, SinePositions))

    def block(self, config: Any, layer: int) -> Stack:
        kind = pattern(config.pattern, config.n_layers, KINDS)[layer]
        attention = Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            window=config.window if kind == "window" else None,
            scale=None if config.scaled_scores else 1.0,
            bias=config.attention_bias == "all",
            out_bias=True,
        )
        mlp = MLP(config.d_model, config.d_ff, ACTIVATIONS[config.activation], gated=False, bias=True)
        if config.norm_sums:
            return Stack(
                [Residual(None, attention), self.make_norm(config), Residual(None, mlp), self.make_norm(config)]
            )
        return Stack(Residual(self.make_norm(config), inner) for inner in (attention, mlp))

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps)
