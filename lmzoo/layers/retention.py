"""RetNet's mixer: multi-scale retention with an output gate (Sun et al. 2023, arXiv 2307.08621, section 2).

Legend: B batch, T time, D model width, H heads, K key width of a head, V value width of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context, Rope
from lmzoo.layers.head_norm import HeadNorm
from lmzoo.layers.init import Init, uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.rope import apply_rope


class Retention(Layer):
    """Linear attention in which head h forgets the share 2^(-5-h) of its memory at each token.

    Queries and keys are rotated by their position; the rotation and the decay are together the relative positions
    xPos of the paper. The outputs of each head are normalized, then multiplied by a gate. The state is the memory
    (B, H, K, V), float32 or wider.
    """

    reach = None
    state_growth = "constant"

    def __init__(self, d_model: int, n_heads: int, *, rope: Rope, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim = n_heads, d_model // n_heads, 2 * d_model // n_heads
        self.rope = rope
        self.qk = Linear(d_model, 2 * d_model, bias=False, init=xavier_uniform(d_model, d_model, 2**-2.5))
        self.v_gate = Linear(d_model, 4 * d_model, bias=False, init=xavier_uniform(d_model, 2 * d_model, 2**-2.5))
        self.norm = HeadNorm(2 * d_model, norm_eps)
        self.out = Linear(2 * d_model, d_model, bias=False, init=xavier_uniform(2 * d_model, d_model, 2**-1))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns a memory (B, H, K, V) of zeros."""
        shape = (batch_size, self.n_heads, self.key_dim, self.value_dim)
        return like.new_zeros(shape, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory for each of a write and a read."""
        return 4.0 * self.n_heads * self.key_dim * self.value_dim

    def transferable(self) -> dict[str, Projection]:
        keys, values = (self.n_heads, self.key_dim), (self.n_heads, self.value_dim)
        v = split_rows(self.v_gate, v=values, gate=values)["v"]
        return {**split_rows(self.qk, q=keys, k=keys), "v": v, "out": output(self.out, *values)}

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q_BTHK, k_BTHK = self.qk(x_BTD).unflatten(-1, (2, self.n_heads, self.key_dim)).unbind(2)
        v_BTE, gate_BTE = self.v_gate(x_BTD).chunk(2, dim=-1)
        table = ctx.rope(self.rope, self.key_dim)
        q_BTHK, k_BTHK = apply_rope(q_BTHK, *table) * self.key_dim**-0.5, apply_rope(k_BTHK, *table)
        v_BTHV = v_BTE.unflatten(-1, (self.n_heads, self.value_dim))
        log_decay_BTH1 = retention_log_decay(self.n_heads, x_BTD.device).expand(*q_BTHK.shape[:2], -1, -1)
        y_BTHV, memory = gated_linear_attention(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH1, state)
        y_BTE = F.silu(gate_BTE) * self.norm(y_BTHV).to(x_BTD.dtype)
        return self.out(y_BTE), None if state is None else memory

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the output gates; the decays do not depend on the token."""
        _, gate_BTE = self.v_gate(x_BTD).chunk(2, dim=-1)
        return {"gates.output": F.silu(gate_BTE)}


def retention_log_decay(n_heads: int, device: torch.device) -> Tensor:
    """Returns log(1 - 2^(-5-h)) for the heads h, (H, 1) in float64."""
    h_H1 = torch.arange(n_heads, device=device, dtype=torch.float64)[:, None]
    return torch.log1p(-(2.0 ** (-5 - h_H1)))


def xavier_uniform(d_in: int, d_out: int, scale: float) -> Init:
    """Returns an initializer that draws uniformly from ±scale sqrt(6 / (d_in + d_out)) (Glorot & Bengio 2010)."""
    return uniform(scale * math.sqrt(6 / (d_in + d_out)))
