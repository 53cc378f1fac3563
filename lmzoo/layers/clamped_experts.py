"""gpt-oss's experts: SwiGLU with limits. Legend: F inner width of an expert."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.experts import Experts

SHARPNESS = 1.702  # x sigmoid(1.702 x) is close to GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415)


class ClampedExperts(Experts):
    """`Experts` with biases, and with `(up + 1) * gate * sigmoid(sharpness * gate)` in place of SwiGLU (gpt-oss, arXiv
    2508.10925). The gate is at most `limit`, and up lies within ±limit, so that no feature grows without bound.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_experts: int,
        top_k: int,
        *,
        limit: float = 7.0,
        sharpness: float = SHARPNESS,
        normalize: bool = True,
        balance_loss: float = 0.0,
        balance_bias: bool = False,
    ) -> None:
        balance = {"balance_loss": balance_loss, "balance_bias": balance_bias}
        super().__init__(d_model, d_ff, n_experts, top_k, normalize=normalize, bias=True, **balance)
        self.limit, self.sharpness = limit, sharpness

    def combine(self, *parts: Tensor) -> Tensor:
        """Returns the inner features (..., F), for gate and up projection."""
        gate, up = parts
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * gate * torch.sigmoid(self.sharpness * gate)
