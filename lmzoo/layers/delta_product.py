"""DeltaProduct's mixer (Siems et al. 2025, arXiv 2502.10297): several steps of the delta rule for each token.

Legend: B batch, T time, D model width, N steps per token, H heads, K key width of a head, V value width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import log_of_uniform, step_sizes
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm, l2_normalize
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops.delta_product import delta_product
from lmzoo.ops.precision import wide, wide_dtype


class DeltaProductState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, H K + N H K + N H V), the convolution's last inputs
    memory: Tensor  # (B, H, K, V), float32 or wider


class DeltaProduct(Layer):
    """A matrix S per head that maps keys to values, and for each token N times `S += beta k (v - S^T k)^T`.

    Each step has its own key, value and beta; the query reads once, after the last step. With `negative_eigenvalues`
    beta can be up to 2, and a token can rotate the memory. With `gated` the memory decays before the first step of each
    token, as in Gated DeltaNet.
    """

    reach = None
    state_growth = "constant"
    A_log: Tensor
    dt_bias: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        key_dim: int,
        value_dim: int,
        *,
        n_steps: int = 2,
        gated: bool = True,
        d_conv: int = 4,
        negative_eigenvalues: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim, self.n_steps = n_heads, key_dim, value_dim, n_steps
        self.gated = gated
        self.largest_beta = 2.0 if negative_eigenvalues else 1.0
        self.widths = [n_heads * key_dim, n_steps * n_heads * key_dim, n_steps * n_heads * value_dim]
        self.qkv = Linear(d_model, sum(self.widths), bias=False)
        self.conv = ShortConv(sum(self.widths), d_conv, bias=False)
        self.beta = Linear(d_model, n_steps * n_heads, bias=False)
        if gated:
            self.keep_float32 = ("A_log", "dt_bias")  # decays close to one do not survive 16 bits
            self.decay = Linear(d_model, n_heads, bias=False)
            self.own("A_log", (n_heads,), log_of_uniform(0.01, 16))
            self.own("dt_bias", (n_heads,), step_sizes(1e-3, 0.1))
        self.gate = Linear(d_model, n_heads * value_dim, bias=False)
        self.norm = RMSNorm(value_dim, norm_eps)
        self.out = Linear(n_heads * value_dim, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> DeltaProductState:
        """Returns zeros for the convolution's last inputs and for the matrices."""
        shape = (batch_size, self.n_heads, self.key_dim, self.value_dim)
        memory_BHKV = like.new_zeros(shape, dtype=wide_dtype(like.dtype))
        return DeltaProductState(self.conv.init_state(batch_size, max_len, like), memory_BHKV)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: per entry of S a multiply-add for a read and a write in each step, and for
        the read with the query.
        """
        return (4.0 * self.n_steps + 2.0) * self.n_heads * self.key_dim * self.value_dim

    def transferable(self) -> dict[str, Projection]:
        keys, values = (self.n_heads, self.key_dim), (self.n_heads, self.value_dim)
        parts = split_rows(self.qkv, q=keys, k=(self.n_steps, *keys), v=(self.n_steps, *values))
        return {**parts, "out": output(self.out, *values)}

    def forward(
        self, x_BTD: Tensor, state: DeltaProductState | None, ctx: Context
    ) -> tuple[Tensor, DeltaProductState | None]:
        tail, memory = (None, None) if state is None else state
        qkv, tail = self.conv(self.qkv(x_BTD), tail, ctx)
        q, k, v = qkv.split(self.widths, dim=-1)
        q_BTHK = l2_normalize(q.unflatten(-1, (self.n_heads, -1))) * self.key_dim**-0.5
        k_BTNHK = l2_normalize(k.unflatten(-1, (self.n_steps, self.n_heads, -1)))
        v_BTNHV = v.unflatten(-1, (self.n_steps, self.n_heads, -1))
        beta_BTNH = self.strength(x_BTD)
        log_decay_BTH = self.log_decay(x_BTD) if self.gated else None
        y_BTHV, memory = delta_product(q_BTHK, k_BTNHK, v_BTNHV, beta_BTNH, log_decay_BTH, memory)
        y_BTE = self.norm(y_BTHV).flatten(2) * F.silu(self.gate(x_BTD))
        return self.out(y_BTE), None if state is None else DeltaProductState(tail, memory)

    def strength(self, x_BTD: Tensor) -> Tensor:
        """Returns beta, the share of the stored value that each step replaces, (B, T, N, H)."""
        return self.largest_beta * self.beta(x_BTD).sigmoid().unflatten(-1, (self.n_steps, self.n_heads))

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns beta, the output gates, and the decays if there are any."""
        offered = {"gates.write": self.strength(x_BTD), "gates.output": F.silu(self.gate(x_BTD))}
        return offered | ({"gates.decay": self.log_decay(x_BTD).exp()} if self.gated else {})

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the decays, (B, T, H), in float32 or wider."""
        return -wide(self.A_log).exp() * F.softplus(wide(self.decay(x_BTD)) + wide(self.dt_bias))
