"""Attention that reads the keys and values of an earlier layer (Brandon et al. 2024, arXiv 2405.12981).

Legend: B batch, T time, D model width, H query heads, G key/value heads, K head width, S keys.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.attention import KEYS_AND_VALUES
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.offers import one_hot_values
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.rope import apply_rope


class CrossLayerAttention(Layer):
    """Attention with its own queries, and with the keys and values of the nearest earlier `Attention`.

    Both must have the same window and rotary settings. It saves the memory of a KV cache.
    """

    reach = 1  # the earlier layer, whose keys it reads, counts the others

    def __init__(self, d_model: int, n_heads: int, *, window: int | None = None, rope: Rope | None = None) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.window, self.rope = window, rope
        self.q = Linear(d_model, d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> tuple[()]:
        """Returns an empty state: the earlier layer keeps the cache."""
        return ()

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: two products, with keys and with values, over all T keys."""
        return 4.0 * T * self.n_heads * self.head_dim

    def forward(self, x_BTD: Tensor, state: tuple[()] | None, ctx: Context) -> tuple[Tensor, tuple[()] | None]:
        q_BTHK = self.queries(x_BTD, ctx)
        assert KEYS_AND_VALUES in ctx.carry, "an Attention with carries=True must come before CrossLayerAttention"
        k_BSGK, v_BSGK = ctx.carry[KEYS_AND_VALUES]
        y_BTHK = causal_attention(q_BTHK, k_BSGK, v_BSGK, window=self.window)
        return self.out(y_BTHK.flatten(2)), state

    def queries(self, x_BTD: Tensor, ctx: Context) -> Tensor:
        """Returns the rotated queries, (B, T, H, K)."""
        q_BTHK = self.q(x_BTD).unflatten(-1, (self.n_heads, self.head_dim))
        return q_BTHK if self.rope is None else apply_rope(q_BTHK, *ctx.rope(self.rope, self.head_dim))

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights: what attention to one-hot values returns."""
        k_BSGK, _ = ctx.carry[KEYS_AND_VALUES]
        values_BSGS = one_hot_values(k_BSGK)
        return {
            "attention.weights": causal_attention(self.queries(x_BTD, ctx), k_BSGK, values_BSGS, window=self.window)
        }
