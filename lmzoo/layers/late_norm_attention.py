"""Attention with norms behind the rotation. Legend as in `lmzoo.layers.attention`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context


class LateNormAttention(Attention):
    """`Attention` whose queries and keys are normalized after they are rotated, as in Hunyuan.

    `late_norm` makes the norms, as `qk_norm` does; `options` are those of `Attention`, but no `scale`: the norm of the
    queries would undo it.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, late_norm: Callable[[int, int], nn.Module], **options: Any
    ) -> None:
        super().__init__(d_model, n_heads, **options)
        self.late_q_norm = late_norm(self.n_heads, self.head_dim)
        self.late_k_norm = late_norm(self.n_kv_heads, self.head_dim)

    def project(self, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries (B, T, H, K), keys and values (B, T, G, K) of the new tokens."""
        q_BTHK, k_BTGK, v_BTGK = super().project(x_BTD, ctx)
        return self.late_q_norm(q_BTHK), self.late_k_norm(k_BTGK), v_BTGK
