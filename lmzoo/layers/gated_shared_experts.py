"""Qwen's experts: those that a router chooses, and one with a gate that reads every token. Legend: B batch, T time."""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.experts import Experts
from lmzoo.layers.linear import Linear
from lmzoo.layers.mlp import MLP


class GatedSharedExperts(Experts):
    """`Experts` plus `sigmoid(gate(x)) * shared(x)`, a gated feed-forward layer of width `d_shared` for all tokens.

    From Qwen1.5-MoE and its successors. The gate is one number for each token.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_experts: int,
        top_k: int,
        d_shared: int,
        *,
        normalize: bool = True,
        balance_loss: float = 0.0,
    ) -> None:
        super().__init__(d_model, d_ff, n_experts, top_k, normalize=normalize, balance_loss=balance_loss)
        self.shared = MLP(d_model, d_shared)
        self.shared_gate = Linear(d_model, 1, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        return super().forward(x_BTD) + self.shared_gate(x_BTD).sigmoid() * self.shared(x_BTD)
