"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

A stack of pre-norm transformer blocks with learned positions, GELU (tanh form) and biases everywhere. Distinctive:
positions are a table of `context_length` rows, so the model does not extrapolate beyond it. Initial values as in the
paper: N(0, 0.02²); the projections into the residual stream are scaled by 1/sqrt(2 n_layers). Deviations: none; the
vocabulary is not padded. With `activation="relu"` it is OPT (Zhang et al. 2022, arXiv 2205.01068).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require_between, require_heads, require_positive, set_default
from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.context import Context
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

ACTIVATIONS = {"gelu_tanh": gelu_tanh, "gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True, kw_only=True)
class GPT2Config(ModelConfig):
    """GPT-2's sizes and options, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    d_model: int = 128  # width of the features
    n_layers: int = 4  # number of blocks
    n_heads: int = 4  # attention heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    dropout: float = 0.0  # share of the features set to zero in training
    activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh"  # of the feed-forward layers
    bias: bool = True  # linear layers and norms have a bias
    norm_eps: float = 1e-5  # added to the variance in a normalization
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "d_model", "n_layers", "d_ff", "norm_eps")
        require_heads(self, rotated=False)
        require_between(self, "dropout", 0, 1, below_high=True)


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        d_model, bias = config.d_model, config.bias
        init_out = normal(0.02 / math.sqrt(2 * config.n_layers))
        self.norm_1 = LayerNorm(d_model, config.norm_eps, bias=bias)
        self.attention = Attention(d_model, config.n_heads, bias=bias, dropout=config.dropout, init_out=init_out)
        self.norm_2 = LayerNorm(d_model, config.norm_eps, bias=bias)
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(d_model, config.d_ff, bias=bias)
        self.down = Linear(config.d_ff, d_model, bias=bias, init=init_out)
        self.dropout = Dropout(config.dropout)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> KVCache:
        """Returns the attention's empty cache."""
        return self.attention.init_state(batch_size, max_len, like)

    def forward(self, x_BTD: Tensor, state: KVCache | None, ctx: Context) -> tuple[Tensor, KVCache | None]:
        """Maps (B, T, D) to (B, T, D); returns it and the next cache, which is None if `state` is None."""
        y_BTD, state = self.attention(self.norm_1(x_BTD), state, ctx)
        x_BTD = x_BTD + self.dropout(y_BTD)
        y_BTD = self.down(self.activation(self.up(self.norm_2(x_BTD))))
        return x_BTD + self.dropout(y_BTD), state


class GPT2State(NamedTuple):
    """The decoding state: the number of tokens read, and the cache of each block."""

    position: int
    blocks: list[KVCache]


@register_model("gpt2")
class GPT2(LanguageModel):
    """Token and position embeddings, `n_layers` blocks, a final norm, a head tied to the token embedding."""

    config_class = GPT2Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.positions = Embedding(config.context_length, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.blocks = Stack(Block(config) for _ in range(config.n_layers))
        self.norm = LayerNorm(config.d_model, config.norm_eps, bias=config.bias)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=False, state_growth="linear")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> GPT2State:
        return GPT2State(0, self.blocks.init_state(batch_size, max_len, like))

    def features(self, idx_BT: Tensor, state: GPT2State | None = None) -> tuple[Tensor, GPT2State | None]:
        position, blocks = (0, None) if state is None else state
        ctx = Context(position, idx_BT.shape[1], idx_BT.device, self.dtype)
        x_BTD = self.dropout(self.tokens(idx_BT) + self.positions(ctx.positions_T))
        x_BTD, blocks = self.blocks(x_BTD, blocks, ctx)
        return self.norm(x_BTD), None if blocks is None else GPT2State(position + ctx.T, blocks)
