"""Mamba-2's mixer (Dao & Gu 2024, arXiv 2405.21060, figure 6): projection, convolution, SSD, gated norm, projection.

Initial values as in the authors' code. Legend: B batch, T time, D model width, E inner width, H heads, P = E / H head
width, N state width, G groups of heads that share input and output maps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init, constant, step_sizes, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide, wide_dtype

LEAST_RATE, GREATEST_RATE = 1.0, 16.0  # initial decay rates are uniform between these


class Mamba2State(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, E + 2 G N), the convolution's last inputs
    memory: Tensor  # (B, H, N, P), float32 or wider


class Mamba2(Layer):
    """A state-space model with one decay per head and token: `S_t = exp(dt A) S_{t-1} + B_t (dt x_t)^T`, `y = C_t S_t`.

    This is linear attention with a decay: C are the queries, B the keys and dt x the values. `d_inner` replaces the
    inner width `expand * d_model`; `dt_min` and `dt_max` are the least and the greatest step size. Without
    `normalized`, the gated output is not divided by its root mean square. `bias` is for the two projections.

    A variant overrides `project`, `scan` or `gated`.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("A_log", "dt_bias")  # decays close to one do not survive 16 bits
    A_log: Tensor  # (H,)
    D: Tensor  # (H,), weight of the direct path
    dt_bias: Tensor  # (H,)
    norm_weight: Tensor | None  # (E,)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        head_dim: int = 64,
        n_groups: int = 1,
        d_conv: int = 4,
        expand: int = 2,
        d_inner: int | None = None,
        dt_min: float = 0.0,
        dt_max: float | None = None,
        bias: bool = False,
        conv_bias: bool = True,
        normalized: bool = True,
        norm_eps: float = 1e-5,
        init_out: Init = uniform_fan_in(),
    ) -> None:
        super().__init__()
        E, shared = d_inner or expand * d_model, n_groups * d_state
        self.d_state, self.head_dim, self.n_groups = d_state, head_dim, n_groups
        self.dt_min, self.dt_max, self.norm_eps = dt_min, dt_max, norm_eps
        self.n_heads = E // head_dim
        self.conv_widths = [E, shared, shared]
        self.widths = [E, sum(self.conv_widths), self.n_heads]
        self.in_proj = Linear(d_model, sum(self.widths), bias=bias, init=uniform_fan_in())
        self.conv = ShortConv(self.widths[1], d_conv, bias=conv_bias)
        self.own("dt_bias", (self.n_heads,), step_sizes(1e-3, 0.1))
        self.own("A_log", (self.n_heads,), _decay_rates)
        self.own("D", (self.n_heads,), constant(1.0))
        if normalized:
            self.own("norm_weight", (E,), constant(1.0))
        else:
            self.register_parameter("norm_weight", None)
        self.out_proj = Linear(E, d_model, bias=bias, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Mamba2State:
        """Returns zeros for the convolution's last inputs and for the memory."""
        shape = (batch_size, self.n_heads, self.d_state, self.head_dim)
        memory_BHNP = like.new_zeros(shape, dtype=wide_dtype(like.dtype))
        return Mamba2State(self.conv.init_state(batch_size, max_len, like), memory_BHNP)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory to write, and one to read."""
        return 4.0 * self.n_heads * self.head_dim * self.d_state

    def transferable(self) -> dict[str, Projection]:
        heads, maps = (self.n_heads, self.head_dim), (self.n_groups, self.d_state)
        parts = split_rows(self.in_proj, gate=heads, v=heads, k=maps, q=maps, dt=(self.n_heads, 1))
        return {**{name: parts[name] for name in ("q", "k", "v")}, "out": output(self.out_proj, *heads)}

    def forward(self, x_BTD: Tensor, state: Mamba2State | None, ctx: Context) -> tuple[Tensor, Mamba2State | None]:
        tail, memory = (None, None) if state is None else state
        gate_BTE, xBC, dt_BTH = self.project(x_BTD)
        xBC, tail = self.conv(xBC, tail, ctx)
        x_BTE, B_BTS, C_BTS = xBC.split(self.conv_widths, dim=-1)
        x_BTHP = wide(x_BTE).unflatten(-1, (self.n_heads, self.head_dim))
        dt_BTH1, log_decay_BTH1 = self.steps(dt_BTH)
        C_BTHN, B_BTHN = self.for_each_head(C_BTS), self.for_each_head(B_BTS)
        y_BTHP, memory = self.scan(C_BTHN, B_BTHN, dt_BTH1 * x_BTHP, log_decay_BTH1, memory, x_BTD, ctx)
        y_BTE = (y_BTHP + self.D[:, None] * x_BTHP).flatten(2)
        y_BTD = self.out_proj(self.gated(y_BTE, F.silu(wide(gate_BTE))).to(gate_BTE.dtype))
        return y_BTD, None if state is None else state._replace(tail=tail, memory=memory)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gate (B, T, E), x, B and C (B, T, E + 2 G N), and the step sizes (B, T, H)."""
        gate_BTE, xBC, dt_BTH = self.in_proj(x_BTD).split(self.widths, dim=-1)
        return gate_BTE, xBC, dt_BTH

    def steps(self, dt_BTH: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the step sizes and the logarithms of the decays, (B, T, H, 1) each."""
        # Adds dt_bias in its own precision: bfloat16 would lose small step sizes, which give long memories.
        dt_BTH1 = F.softplus(dt_BTH.to(self.dt_bias.dtype) + self.dt_bias)[..., None]
        if self.dt_min or self.dt_max is not None:
            dt_BTH1 = dt_BTH1.clamp(self.dt_min, self.dt_max)
        return dt_BTH1, -dt_BTH1 * self.A_log.exp()[:, None]

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays, the step sizes and the output gates."""
        gate_BTE, _, dt_BTH = self.project(x_BTD)
        dt_BTH1, log_decay_BTH1 = self.steps(dt_BTH)
        gates = {"gates.decay": log_decay_BTH1.exp(), "gates.write": dt_BTH1}
        return gates | {"gates.output": F.silu(wide(gate_BTE))}

    def scan(
        self,
        q_BTHN: Tensor,
        k_BTHN: Tensor,
        v_BTHP: Tensor,
        log_decay_BTH1: Tensor,
        memory: Any,
        x_BTD: Tensor,
        ctx: Context,
    ) -> tuple[Tensor, Any]:
        """Returns the outputs (B, T, H, P) and the next memory. `x_BTD` is the layer's input, for variants."""
        return gated_linear_attention(q_BTHN, k_BTHN, v_BTHP, log_decay_BTH1, memory)

    def for_each_head(self, x_BTS: Tensor) -> Tensor:
        """Repeats the map of each group for its heads: (B, T, G N) to (B, T, H, N)."""
        x_BTGN = x_BTS.unflatten(-1, (self.n_groups, self.d_state))
        return x_BTGN.repeat_interleave(self.n_heads // self.n_groups, dim=2)

    def gated(self, y_BTE: Tensor, gate_BTE: Tensor) -> Tensor:
        """Returns the outputs times the gate, normalized."""
        return self.norm(y_BTE * gate_BTE)

    def norm(self, y_BTE: Tensor) -> Tensor:
        """Returns y divided by its root mean square in each group, times a weight; y itself if not `normalized`."""
        if self.norm_weight is None:
            return y_BTE
        y_BTGX = y_BTE.unflatten(-1, (self.n_groups, -1))
        return F.rms_norm(y_BTGX, y_BTGX.shape[-1:], eps=self.norm_eps).flatten(2) * self.norm_weight


def _decay_rates(A_log_H: Tensor, generator: torch.Generator | None) -> None:
    """Draws decay rates A and sets A_log to their logs."""
    A_log_H.uniform_(LEAST_RATE, GREATEST_RATE, generator=generator).log_()
