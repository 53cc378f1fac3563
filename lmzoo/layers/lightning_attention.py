"""Lightning attention, the linear attention of MiniMax-01 (arXiv 2501.08313, section 2.2; Qin et al. 2024, arXiv
2401.04658).

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide, wide_dtype


class LightningAttention(Layer):
    """`out(sigmoid(gate(x)) * norm(y))` with `S_t = exp(-s) S_{t-1} + k_t v_t^T`, `y_t = S_t^T q_t` in each head.

    Queries, keys and values go through silu. Head h has the slope s = `steepness` 2^(-8 (h + 1) / H), as in ALiBi;
    `steepness` falls with the depth of the layer, so that upper layers remember longer. The norm is over all heads
    together. The state is the memory (B, H, K, K), float32 or wider.
    """

    reach = None
    state_growth = "constant"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        head_dim: int | None = None,
        steepness: float = 1.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.steepness = n_heads, head_dim or d_model // n_heads, steepness
        inner = self.n_heads * self.head_dim
        self.qkv = Linear(d_model, 3 * inner, bias=False)
        self.gate = Linear(d_model, inner, bias=False)
        self.norm = RMSNorm(inner, norm_eps)
        self.out = Linear(inner, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns a memory (B, H, K, K) of zeros."""
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        return like.new_zeros(shape, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory for each of a write and a read."""
        return 4.0 * self.n_heads * self.head_dim**2

    def transferable(self) -> dict[str, Projection]:
        heads = (self.n_heads, self.head_dim)
        return {**split_rows(self.qkv, q=heads, k=heads, v=heads), "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q, k, v = F.silu(self.qkv(x_BTD)).unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(2)
        log_decay_BTH1 = self.log_decay(x_BTD.device).expand(*q.shape[:2], -1, -1)
        y_BTHK, memory = gated_linear_attention(q, k, v, log_decay_BTH1, state)
        y_BTE = self.output_gate(x_BTD) * self.norm(y_BTHK.flatten(2)).to(x_BTD.dtype)
        return self.out(y_BTE), None if state is None else memory

    def log_decay(self, device: torch.device) -> Tensor:
        """Returns the logarithms of the heads' decays, (H, 1) in float64."""
        heads_H1 = torch.arange(1, self.n_heads + 1, device=device, dtype=torch.float64)[:, None]
        return -self.steepness * 2.0 ** (-8 * heads_H1 / self.n_heads)

    def output_gate(self, x_BTD: Tensor) -> Tensor:
        """Returns the factors of what the heads have read, (B, T, H K)."""
        return torch.sigmoid(wide(self.gate(x_BTD))).to(x_BTD.dtype)

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the output gates; the decays do not depend on the token."""
        return {"gates.output": self.output_gate(x_BTD)}
