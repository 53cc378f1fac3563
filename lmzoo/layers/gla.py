"""The mixer of gated linear attention, GLA (Yang et al. 2024, arXiv 2312.06635, section 4).

Legend: B batch, T time, D model width, H heads, K key width of a head, V value width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide, wide_dtype


class GLA(Layer):
    """Linear attention whose memory decays by a share that depends on the token, one for each key channel.

    Keys are half as wide as values. A decay is `sigmoid(z)^(1 / temperature)` with z from a projection of rank
    `gate_rank`. The state is the memory (B, H, K, V), float32 or wider.
    """

    reach = None
    state_growth = "constant"

    def __init__(
        self, d_model: int, n_heads: int, *, gate_rank: int = 16, temperature: float = 16.0, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.n_heads, self.temperature = n_heads, temperature
        self.key_dim, self.value_dim = d_model // 2 // n_heads, d_model // n_heads
        self.widths = [n_heads * self.key_dim, n_heads * self.key_dim, d_model]
        self.qkv = Linear(d_model, sum(self.widths), bias=False)
        self.decay_down = Linear(d_model, gate_rank, bias=False)
        self.decay_up = Linear(gate_rank, self.widths[1])
        self.gate = Linear(d_model, d_model)
        self.norm = RMSNorm(self.value_dim, norm_eps)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns a memory (B, H, K, V) of zeros."""
        shape = (batch_size, self.n_heads, self.key_dim, self.value_dim)
        return like.new_zeros(shape, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory for each of a write and a read."""
        return 4.0 * self.n_heads * self.key_dim * self.value_dim

    def transferable(self) -> dict[str, Projection]:
        keys, values = (self.n_heads, self.key_dim), (self.n_heads, self.value_dim)
        return {**split_rows(self.qkv, q=keys, k=keys, v=values), "out": output(self.out, *values)}

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q_BTHK, k_BTHK, v_BTHV = (
            part.unflatten(-1, (self.n_heads, -1)) for part in self.qkv(x_BTD).split(self.widths, dim=-1)
        )
        q_BTHK = q_BTHK * self.key_dim**-0.5
        y_BTHV, memory = gated_linear_attention(q_BTHK, k_BTHK, v_BTHV, self.log_decay(x_BTD), state)
        y_BTD = self.norm(y_BTHV).flatten(2) * F.silu(self.gate(x_BTD))
        return self.out(y_BTD), None if state is None else memory

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the decays, (B, T, H, K), in float32 or wider."""
        logits_BTHK = self.decay_up(self.decay_down(x_BTD)).unflatten(-1, (self.n_heads, self.key_dim))
        return F.logsigmoid(wide(logits_BTHK)) / self.temperature

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays and the output gates."""
        return {"gates.decay": self.log_decay(x_BTD).exp(), "gates.output": F.silu(self.gate(x_BTD))}
