"""Kimi delta attention, KDA (Kimi Team 2025, arXiv 2510.26692, section 3): the delta rule with a decay per key channel.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.init import log_of_uniform, step_sizes
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide


class KDA(GatedDelta):
    """Gated DeltaNet's mixer with a decay for each key channel, and sigmoid output gates.

    Decays and gates are computed through projections of rank K. Keys and values have the same width. With
    `negative_eigenvalues` beta can be up to 2 (Grazzi et al. 2024, arXiv 2411.12537).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        head_dim: int,
        *,
        d_conv: int = 4,
        negative_eigenvalues: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        options = {"d_conv": d_conv, "negative_eigenvalues": negative_eigenvalues, "norm_eps": norm_eps}
        super().__init__(d_model, n_heads, head_dim, head_dim, **options)

    def make_gates(self, d_model: int) -> None:
        H, K = self.n_heads, self.key_dim
        self.decay_down, self.decay_up = Linear(d_model, K, bias=False), Linear(K, H * K, bias=False)
        self.own("A_log", (H,), log_of_uniform(1, 16))
        self.own("dt_bias", (H * K,), step_sizes(1e-3, 0.1))
        self.gate_down, self.gate_up = Linear(d_model, K, bias=False), Linear(K, H * K, bias=False)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the decays, (B, T, H, K), in float32 or wider."""
        steps = F.softplus(wide(self.decay_up(self.decay_down(x_BTD))) + wide(self.dt_bias))
        return -wide(self.A_log).exp()[:, None] * steps.unflatten(-1, (self.n_heads, self.key_dim))

    def output_gate(self, x_BTD: Tensor) -> Tensor:
        """Returns the factors of the normalized outputs, (B, T, H, K)."""
        return torch.sigmoid(self.gate_up(self.gate_down(x_BTD))).unflatten(-1, (self.n_heads, self.value_dim))
