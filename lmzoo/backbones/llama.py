"""Llama (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288), and with a `window` Mistral (arXiv 2310.06825).

A pre-norm transformer with RMSNorm, SwiGLU, rotary positions, no biases, and optionally grouped queries and a sliding
window. Distinctive: positions are rotations of queries and keys, so nothing ends at `context_length`; with a window
the decoding state stops growing. The papers do not state their initialisation: N(0, 0.02²) throughout, as their
published configurations say (`initializer_range`). Deviations: query, key and value are one
product; so are gate and up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmzoo.configs import require, require_divides, require_positive
from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.gated_mlp import SwiGLU
from lmzoo.layers.linear import Embedding, make_head
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.rope import rope_table
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(ModelConfig):
    """Llama's sizes and options; `ModelConfig` has the rest."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: as many as n_heads
    d_ff: int | None = None  # None: 8/3 d_model, rounded up to a multiple of 32
    window: int | None = None  # tokens each layer sees, the present one included; None: all
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers", "n_heads", "rope_theta", "norm_eps")
        require_divides(self, "n_heads", "d_model")
        head_dim = self.d_model // self.n_heads
        require(
            head_dim % 2 == 0, f"n_heads={self.n_heads} gives head_dim={head_dim}, which must be even to be rotated"
        )
        for name in ("n_kv_heads", "d_ff", "window"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        if self.n_kv_heads is not None:
            require_divides(self, "n_kv_heads", "n_heads")


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.norm_1 = RMSNorm(d_model, config.norm_eps)
        self.attention = Attention(d_model, config.n_heads, n_kv_heads=config.n_kv_heads, window=config.window)
        self.norm_2 = RMSNorm(d_model, config.norm_eps)
        self.mlp = SwiGLU(d_model, config.d_ff or -(-8 * d_model // 3 // 32) * 32)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> KVCache:
        """Its piece of the decoding state before the first token."""
        return self.attention.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def forward(
        self, x_BTD: Tensor, state: KVCache | None = None, *, rope_TK: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, KVCache | None]:
        """(B, T, D) and its piece of the state to (B, T, D) and the next piece; None stays None."""
        y_BTD, state = self.attention(self.norm_1(x_BTD), state, rope_TK)
        x_BTD = x_BTD + y_BTD
        return x_BTD + self.mlp(self.norm_2(x_BTD)), state


@register_model("llama")
class Llama(LanguageModel):
    """Token embeddings, `n_layers` blocks with rotary positions, a final norm, a head."""

    config_class = LlamaConfig
    config: LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.blocks = Stack(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        window = self.config.window
        if window is None:
            return Traits(extrapolates=True, state_growth="linear")
        reach = self.config.n_layers * (window - 1) + 1  # each layer looks `window - 1` tokens further back
        return Traits(extrapolates=True, state_growth="constant", receptive_field=reach)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {"position": 0, "blocks": self.blocks.empty_state(batch_size, max_len, device=device, dtype=dtype)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        start, T = (0 if state is None else state["position"]), idx_BT.shape[1]
        head_dim = self.config.d_model // self.config.n_heads
        rope_TK = rope_table(start, T, head_dim, self.config.rope_theta, device=idx_BT.device)
        x_BTD, blocks = self.blocks(self.tokens(idx_BT), None if state is None else state["blocks"], rope_TK=rope_TK)
        return self.norm(x_BTD), None if state is None else {"position": start + T, "blocks": blocks}
