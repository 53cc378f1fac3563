"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

A stack of pre-norm transformer blocks with learned positions, GELU (tanh form) and biases everywhere. Distinctive:
positions are a table of `context_length` rows, so the model cannot look further back than that. Initialisation as in
the paper: N(0, 0.02²), the projections into the residual stream scaled by 1/sqrt(2 n_layers). Deviations: none; the
vocabulary is not padded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmzoo.configs import require_between, require_divides, require_positive
from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.linear import Embedding, Linear, make_head
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class GPT2Config(ModelConfig):
    """GPT-2's sizes; `ModelConfig` has the rest."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    dropout: float = 0.0
    bias: bool = True
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers", "n_heads")
        require_divides(self, "n_heads", "d_model")
        require_between(self, "dropout", 0, 1, below_high=True)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        d_model, bias = config.d_model, config.bias
        residual_std = 0.02 / math.sqrt(2 * config.n_layers)
        self.norm_1 = LayerNorm(d_model, bias=bias)
        self.attention = Attention(d_model, config.n_heads, bias=bias, dropout=config.dropout, out_std=residual_std)
        self.norm_2 = LayerNorm(d_model, bias=bias)
        self.up = Linear(d_model, 4 * d_model, bias=bias)
        self.down = Linear(4 * d_model, d_model, bias=bias, std=residual_std)
        self.dropout = Dropout(config.dropout)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> KVCache:
        """Its piece of the decoding state before the first token."""
        return self.attention.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def forward(self, x_BTD: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """(B, T, D) and its piece of the state to (B, T, D) and the next piece; None stays None."""
        y_BTD, state = self.attention(self.norm_1(x_BTD), state)
        x_BTD = x_BTD + self.dropout(y_BTD)
        y_BTD = self.down(gelu_tanh(self.up(self.norm_2(x_BTD))))
        return x_BTD + self.dropout(y_BTD), state


@register_model("gpt2")
class GPT2(LanguageModel):
    """Token + position embeddings, `n_layers` blocks, a final norm, a head tied to the token embedding."""

    config_class = GPT2Config
    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.positions = Embedding(config.context_length, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.blocks = Stack(Block(config) for _ in range(config.n_layers))
        self.norm = LayerNorm(config.d_model, bias=config.bias)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=False, state_growth="linear")

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {"position": 0, "blocks": self.blocks.empty_state(batch_size, max_len, device=device, dtype=dtype)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        start, T = (0 if state is None else state["position"]), idx_BT.shape[1]
        x_BTD = self.tokens(idx_BT) + self.positions(torch.arange(start, start + T, device=idx_BT.device))
        x_BTD = self.dropout(x_BTD)
        x_BTD, blocks = self.blocks(x_BTD, None if state is None else state["blocks"])
        return self.norm(x_BTD), None if state is None else {"position": start + T, "blocks": blocks}
