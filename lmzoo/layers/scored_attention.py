"""Attention with a soft cap, ALiBi or sinks. Legend: B batch, T time, H query heads, G key/value heads, S keys."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmzoo.layers.attention import Attention
from lmzoo.layers.init import constant
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.scored_attention import alibi_slopes, scored_attention


class ScoredAttention(Attention):
    """`Attention` whose scores are changed (`lmzoo.ops.scored_attention`); `options` are those of `Attention`.

    - `cap`: scores stay within ±cap (Gemma 2)
    - `alibi`: a bias for each head, linear in the distance, in place of positions
    - `sinks`: a learned score for each head that takes attention away from all keys (gpt-oss); 0 at first
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        cap: float | None = None,
        alibi: bool = False,
        sinks: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(d_model, n_heads, **options)
        self.cap, self.alibi = cap, alibi
        self.sinks: Tensor | None = None
        if sinks:
            del self.sinks  # a parameter takes its name
            self.own("sinks", (n_heads,), constant(0.0))

    def attend(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor) -> Tensor:
        """Returns the weighted sums of the values: (B, T, H, K)."""
        if self.cap is None and not self.alibi and self.sinks is None:
            return super().attend(q_BTHK, k_BSGK, v_BSGK)
        slopes_H = None
        if self.alibi:
            slopes_H = q_BTHK.new_tensor(alibi_slopes(self.n_heads), dtype=wide_dtype(q_BTHK.dtype))
        return scored_attention(
            q_BTHK,
            k_BSGK,
            v_BSGK,
            window=self.window,
            cap=self.cap,
            slopes_H=slopes_H,
            sinks_H=self.sinks,
            dropout=self.dropout * self.training,
        )
