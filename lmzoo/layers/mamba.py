"""Mamba's mixer (Gu & Dao 2023, arXiv 2312.00752, figure 3): convolution, selective scan and gate.

Initial values as in the authors' code. Deviation: the step size is computed in float32 under autocast.

Legend: B batch, T time, D model width, E inner width, N states per channel, R rank of the step size's projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init, constant, step_sizes, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.selective_scan import selective_scan

DELTA_MIN, DELTA_MAX = 1e-3, 1e-1  # initial step sizes are log-uniform between these


class MambaState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, E), the convolution's last inputs
    h: Tensor  # (B, E, N), float32 or wider


class Mamba(Layer):
    """A state-space model whose step size, input and output maps depend on the token.

    With `negative_eigenvalues` the decays are between -1 and 1 instead of 0 and 1 (Grazzi et al. 2024, arXiv
    2411.12537). `select_norm(width)` makes a norm for the inputs of the step size, one for B and one for C: without
    weights in Falcon Mamba (Zuo et al. 2024, arXiv 2410.05355), with weights in Jamba (arXiv 2403.19887). `bias` is for
    the first and the last projection.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("A_log", "dt_bias")  # decays close to one do not survive 16 bits
    A_log: Tensor  # (E, N)
    D: Tensor  # (E,), weight of the direct path
    dt_bias: Tensor  # (E,)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        bias: bool = False,
        conv_bias: bool = True,
        negative_eigenvalues: bool = False,
        select_norm: Callable[[int], nn.Module] | None = None,
        init_out: Init = uniform_fan_in(),
    ) -> None:
        super().__init__()
        E, R = expand * d_model, dt_rank or default_dt_rank(d_model)
        self.d_state, self.signed = d_state, negative_eigenvalues
        self.widths = [R, d_state, d_state]
        self.in_proj = Linear(d_model, 2 * E, bias=bias, init=uniform_fan_in())
        self.conv = ShortConv(E, d_conv, bias=conv_bias)
        self.x_proj = Linear(E, sum(self.widths), bias=False, init=uniform_fan_in())
        self.dt_proj = Linear(R, E, bias=False, init=uniform_fan_in())
        norms = None if select_norm is None else map(select_norm, self.widths)
        self.select_norms = None if norms is None else nn.ModuleList(norms)
        self.own("dt_bias", (E,), step_sizes(DELTA_MIN, DELTA_MAX))
        self.own("A_log", (E, d_state), _decay_rates, "vector")
        self.own("D", (E,), constant(1.0))
        self.out_proj = Linear(E, d_model, bias=bias, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> MambaState:
        """Returns zeros for the convolution's last inputs and for the states."""
        h_BEN = like.new_zeros(batch_size, *self.A_log.shape, dtype=wide_dtype(like.dtype))
        return MambaState(self.conv.init_state(batch_size, max_len, like), h_BEN)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: two multiply-adds per state of the scan, for the update and the output."""
        return 4.0 * self.A_log.numel()

    def forward(self, x_BTD: Tensor, state: MambaState | None, ctx: Context) -> tuple[Tensor, MambaState | None]:
        tail, h = (None, None) if state is None else state
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, tail = self.conv(u_BTE, tail, ctx)
        delta_BTE, B_BTN, C_BTN = self.select(u_BTE)
        A_EN = -torch.exp(self.A_log)
        y_BTE, h = selective_scan(u_BTE, delta_BTE, A_EN, B_BTN, C_BTN, self.D, h, signed=self.signed)
        y_BTD = self.out_proj(y_BTE * F.silu(gate_BTE))
        return y_BTD, None if state is None else MambaState(tail, h)

    def select(self, u_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the step sizes (B, T, E), and the input and output maps, (B, T, N) each."""
        selected = self.x_proj(u_BTE).split(self.widths, dim=-1)
        if self.select_norms is not None:
            selected = [norm(part) for norm, part in zip(self.select_norms, selected, strict=True)]
        dt_BTR, B_BTN, C_BTN = selected
        # Adds dt_bias in its own precision: bfloat16 would lose small step sizes, which give long memories.
        delta_BTE = F.softplus(self.dt_proj(dt_BTR).to(self.dt_bias.dtype) + self.dt_bias)
        return delta_BTE, B_BTN, C_BTN

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays of all states (B, T, E, N), the step sizes and the output gates."""
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, _ = self.conv(u_BTE, None, ctx)
        delta_BTE, _, _ = self.select(u_BTE)
        decay_BTEN = torch.exp(-delta_BTE[..., None] * torch.exp(self.A_log))
        decay_BTEN = 2 * decay_BTEN - 1 if self.signed else decay_BTEN
        return {"gates.decay": decay_BTEN, "gates.write": delta_BTE, "gates.output": F.silu(gate_BTE)}


def default_dt_rank(d_model: int) -> int:
    """Returns the usual rank of the step size's projection: d_model / 16, rounded up."""
    return math.ceil(d_model / 16)


def _decay_rates(A_log_EN: Tensor, generator: torch.Generator | None) -> None:
    """Sets S4D-real decay rates: the n-th state of every channel decays at the rate n."""
    rates_N = torch.arange(1, A_log_EN.shape[1] + 1, device=A_log_EN.device)
    A_log_EN.copy_(rates_N.log().expand_as(A_log_EN))
