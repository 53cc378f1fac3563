"""A correct transformer whose attention offers its weights and declares its projections, for exhibits of both."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.rope import apply_rope, rope_table
from tests.museum.base import Attention, Transformer


class OfferingAttention(Attention):
    """`Attention` with `offers` and `transferable`."""

    def scores(self, x_BTD: Tensor, position: int) -> Tensor:
        """Returns the scores (B, T, H, S) of the tokens, without a mask."""
        B, T, D = x_BTD.shape
        q, k, _ = self.qkv(x_BTD).view(B, T, 3, self.config.n_heads, -1).unbind(2)
        K = D // self.config.n_heads
        table = rope_table(position, T, K, 10000.0, device=x_BTD.device, dtype=torch.float64)
        q, k = apply_rope(q, *table), apply_rope(k, *table)
        return torch.einsum("bthk,bshk->bths", q, k) / math.sqrt(K)

    def weights(self, scores_BTHS: Tensor) -> Tensor:
        """Returns the attention weights."""
        T = scores_BTHS.shape[1]
        return scores_BTHS.masked_fill(~self.mask(T, T)[:, None], -math.inf).softmax(dim=-1)

    def offers(self, x_BTD: Tensor, position: int) -> dict[str, Tensor]:
        return {"attention.weights": self.weights(self.scores(x_BTD, position))}

    def transferable(self) -> dict[str, Projection]:
        H = self.config.n_heads
        heads = (H, self.config.d_model // H)
        return {**split_rows(self.qkv, q=heads, k=heads, v=heads), "out": output(self.out, *heads)}


class Offering(Transformer):
    attention_class = OfferingAttention
