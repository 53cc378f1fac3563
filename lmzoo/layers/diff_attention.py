"""Differential attention (Ye et al. 2024, arXiv 2410.05258).

Legend: B batch, T time, H query maps (two per head), G key maps, S keys, K width of queries and keys, V = 2 K width of
values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.init import normal
from lmzoo.layers.offers import one_hot_values
from lmzoo.layers.projections import Projection
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.precision import wide


class DiffAttention(Attention):
    """Attention with two softmax maps per head, of which the second, times lambda, is subtracted from the first.

    `lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init` with four learned vectors per layer. Each head's output is
    normalized and multiplied by `1 - lambda_init`, so that its size does not depend on `lambda_init`.

    Map n of head h is map `n * n_heads + h` of the projections, and half n of the value of key head g is value
    `n * n_kv_heads + g`, as in transformers.
    """

    lambda_q1: Tensor  # (K,), as the other three
    lambda_k1: Tensor
    lambda_q2: Tensor
    lambda_k2: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        lambda_init: float,
        *,
        n_kv_heads: int | None = None,
        rope: Rope | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(d_model, 2 * n_heads, n_kv_heads=2 * (n_kv_heads or n_heads), rope=rope)
        self.lambda_init, self.norm_eps = lambda_init, norm_eps
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            self.own(name, (self.head_dim,), normal(0.1))

    def transferable(self) -> dict[str, Projection]:
        return {}  # a head has two maps, and its value is in two places

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a product with keys, and one with values of twice the width."""
        return 6.0 * T * self.n_heads * self.head_dim

    def attend(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor) -> Tensor:
        """Returns the normalized differences of the two maps' weighted means of the values, (B, T, H/2, V)."""
        v_BSGV = rearrange(v_BSGK, "b s (n g) k -> b s g (n k)", n=2).repeat(1, 1, 2, 1)
        difference_BTHV = self.difference(q_BTHK, k_BSGK, v_BSGV)
        normalized_BTHV = F.rms_norm(difference_BTHV, difference_BTHV.shape[-1:], eps=self.norm_eps)
        return normalized_BTHV * (1 - self.lambda_init)

    def difference(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor) -> Tensor:
        """Returns the first map's weighted means of the values minus lambda times those of the second."""
        first_BTHV, second_BTHV = causal_attention(q_BTHK, k_BSGK, v_BSGV).chunk(2, dim=2)
        return first_BTHV - self.strength().to(second_BTHV.dtype) * second_BTHV

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the differences of the two maps' attention weights, which may be negative."""
        q_BTHK, k_BSGK, _ = self.project(x_BTD, ctx)
        return {"attention.weights": self.difference(q_BTHK, k_BSGK, one_hot_values(k_BSGK))}

    def strength(self) -> Tensor:
        """Returns lambda, the share of the second map that is subtracted, in float32 or wider."""
        first, second = (
            torch.exp((wide(q_K) * wide(k_K)).sum())
            for q_K, k_K in ((self.lambda_q1, self.lambda_k1), (self.lambda_q2, self.lambda_k2))
        )
        return first - second + self.lambda_init
