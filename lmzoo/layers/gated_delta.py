"""Gated DeltaNet's mixer (Yang et al. 2024, arXiv 2412.06464): the delta rule with a decay, and an output gate.

Legend: B batch, T time, D model width, H heads, G heads of queries and keys, K key width of a head, V value width of a
head, A width of the decays.
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
from lmzoo.ops.gated_delta_rule import gated_delta_rule
from lmzoo.ops.precision import wide, wide_dtype


class GatedDeltaState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, 2 G K + H V), the convolution's last inputs
    memory: Tensor  # (B, H, K, V), float32 or wider


class GatedDelta(Layer):
    """A matrix S per head that maps keys to values: `S <- a S`, then `S += beta k (v - S^T k)^T`, `y = S^T q`.

    The decay `a = exp(-exp(A_log) softplus(W x + dt_bias))`, one per head, lets go of the whole memory at once; the
    delta rule replaces the value under one key. With `negative_eigenvalues` beta can be up to 2 (Grazzi et al. 2024,
    arXiv 2411.12537). With `n_key_heads`, several heads share queries and keys, as in Qwen3-Next. A variant overrides
    `make_gates`, `log_decay` and `output_gate`.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("A_log", "dt_bias")  # decays close to one do not survive 16 bits
    A_log: Tensor
    dt_bias: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        key_dim: int,
        value_dim: int,
        *,
        n_key_heads: int | None = None,
        d_conv: int = 4,
        negative_eigenvalues: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim = n_heads, key_dim, value_dim
        self.n_key_heads = n_key_heads or n_heads
        self.largest_beta = 2.0 if negative_eigenvalues else 1.0
        self.widths = [self.n_key_heads * key_dim, self.n_key_heads * key_dim, n_heads * value_dim]
        self.qkv = Linear(d_model, sum(self.widths), bias=False)
        self.conv = ShortConv(sum(self.widths), d_conv, bias=False)
        self.beta = Linear(d_model, n_heads, bias=False)
        self.make_gates(d_model)
        self.norm = RMSNorm(value_dim, norm_eps)
        self.out = Linear(n_heads * value_dim, d_model, bias=False)

    def make_gates(self, d_model: int) -> None:
        """Creates the parameters of the decay and of the output gate."""
        self.decay = Linear(d_model, self.n_heads, bias=False)
        self.own("A_log", (self.n_heads,), log_of_uniform(0.01, 16))
        self.own("dt_bias", (self.n_heads,), step_sizes(1e-3, 0.1))
        self.gate = Linear(d_model, self.n_heads * self.value_dim, bias=False)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the decays, (B, T, H, 1), in float32 or wider."""
        step_BTH = F.softplus(wide(self.decay(x_BTD)) + wide(self.dt_bias))
        return (-wide(self.A_log).exp() * step_BTH)[..., None]

    def output_gate(self, x_BTD: Tensor) -> Tensor:
        """Returns the factors of the normalized outputs, (B, T, H, V)."""
        return F.silu(self.gate(x_BTD)).unflatten(-1, (self.n_heads, self.value_dim))

    def strength(self, x_BTD: Tensor) -> Tensor:
        """Returns beta, the share of the stored value that is replaced, (B, T, H)."""
        return self.largest_beta * self.beta(x_BTD).sigmoid()

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays, beta and the output gates."""
        return {
            "gates.decay": self.log_decay(x_BTD).exp(),
            "gates.write": self.strength(x_BTD),
            "gates.output": self.output_gate(x_BTD),
        }

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> GatedDeltaState:
        """Returns zeros for the convolution's last inputs and for the matrices."""
        shape = (batch_size, self.n_heads, self.key_dim, self.value_dim)
        memory_BHKV = like.new_zeros(shape, dtype=wide_dtype(like.dtype))
        return GatedDeltaState(self.conv.init_state(batch_size, max_len, like), memory_BHKV)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of S for each of two reads and one write."""
        return 6.0 * self.n_heads * self.key_dim * self.value_dim

    def transferable(self) -> dict[str, Projection]:
        keys, values = (self.n_key_heads, self.key_dim), (self.n_heads, self.value_dim)
        return {**split_rows(self.qkv, q=keys, k=keys, v=values), "out": output(self.out, *values)}

    def forward(
        self, x_BTD: Tensor, state: GatedDeltaState | None, ctx: Context
    ) -> tuple[Tensor, GatedDeltaState | None]:
        tail, memory = (None, None) if state is None else state
        qkv, tail = self.conv(self.qkv(x_BTD), tail, ctx)
        widths = (self.key_dim, self.key_dim, self.value_dim)
        parts = zip(qkv.split(self.widths, dim=-1), widths, strict=True)
        q_BTHK, k_BTHK, v_BTHV = (part.unflatten(-1, (-1, width)) for part, width in parts)
        q_BTHK, k_BTHK = l2_normalize(q_BTHK) * self.key_dim**-0.5, l2_normalize(k_BTHK)
        if self.n_key_heads < self.n_heads:
            q_BTHK, k_BTHK = (x.repeat_interleave(self.n_heads // self.n_key_heads, dim=2) for x in (q_BTHK, k_BTHK))
        beta_BTH = self.strength(x_BTD)
        y_BTHV, memory = gated_delta_rule(
            q_BTHK, k_BTHK, v_BTHV, beta_BTH, self.log_decay(x_BTD), memory, largest_beta=self.largest_beta
        )
        y_BTHV = self.norm(y_BTHV) * self.output_gate(x_BTD)
        return self.out(y_BTHV.flatten(2)), None if state is None else GatedDeltaState(tail, memory)
