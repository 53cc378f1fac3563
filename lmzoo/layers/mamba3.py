"""Mamba-3's mixer (Lahoti et al. 2026, arXiv 2603.15569): projection, normalized maps, a state that rotates, gate.

Initial values as in the authors' code. Legend: B batch, T time, D model width, E inner width, H heads, P = E / H head
width, N state width, R pairs of features of the state that rotate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init, constant, step_sizes, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.ops.trapezoidal_attention import TrapezoidalState, trapezoidal_attention

LEAST_RATE = 1e-4  # of the decay


class Mamba3State(NamedTuple):
    """The decoding state of the mixer; float32 or wider."""

    angle: Tensor  # (B, H, R), by which the state has rotated, from 0 to 2 pi
    memory: TrapezoidalState


class Mamba3(Layer):
    """A state-space model with a decay and rotations for each head and token, integrated by a trapezoidal rule.

    `S_t = exp(dt A_t) (S_{t-1} + (1 - l_t) dt B_{t-1} x_{t-1}^T) + l_t dt B_t x_t^T`, `y_t = C_t S_t`. Instead of the
    state, B and C are rotated, by the sum of the angles so far.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("dt_bias",)  # small steps, and so decays close to one, do not survive 16 bits
    dt_bias: Tensor  # (H,)
    B_bias: Tensor  # (H, N)
    C_bias: Tensor  # (H, N)
    D: Tensor  # (H,), weight of the direct path

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        rope_fraction: float = 0.5,
        norm_eps: float = 1e-5,
        init_out: Init = uniform_fan_in(),
    ) -> None:
        super().__init__()
        E, H = expand * d_model, expand * d_model // head_dim
        self.n_heads, self.head_dim, self.d_state = H, head_dim, d_state
        self.n_pairs = rotating_pairs(d_state, rope_fraction)
        self.widths = [E, E, d_state, d_state, H, H, H, self.n_pairs]
        self.in_proj = Linear(d_model, sum(self.widths), bias=False, init=uniform_fan_in())
        self.B_norm, self.C_norm = RMSNorm(d_state, norm_eps), RMSNorm(d_state, norm_eps)
        self.own("B_bias", (H, d_state), constant(1.0), "vector")
        self.own("C_bias", (H, d_state), constant(1.0), "vector")
        self.own("dt_bias", (H,), step_sizes(1e-3, 0.1))
        self.own("D", (H,), constant(1.0))
        self.out_proj = Linear(E, d_model, bias=False, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Mamba3State:
        """Returns zeros for the angles, the memory, and the token before the first one."""
        H, N, P = self.n_heads, self.d_state, self.head_dim
        shapes = ((H, self.n_pairs), (H, N, P), (H, N), (H, P))
        angle, *memory = (like.new_zeros(batch_size, *shape, dtype=wide_dtype(like.dtype)) for shape in shapes)
        return Mamba3State(angle, TrapezoidalState(*memory))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory for each of two writes and a read."""
        return 6.0 * self.n_heads * self.head_dim * self.d_state

    def forward(self, x_BTD: Tensor, state: Mamba3State | None, ctx: Context) -> tuple[Tensor, Mamba3State | None]:
        angle, memory = (None, None) if state is None else state
        gate_BTE, x_BTE, B_BTN, C_BTN, dt_BTH, A_BTH, mix_BTH, turn_BTR = self.in_proj(x_BTD).split(self.widths, dim=-1)
        x_BTHP = wide(x_BTE).unflatten(-1, (self.n_heads, self.head_dim))
        dt_BTH1, log_decay_BTH1, end_BTH1 = self.steps(dt_BTH, A_BTH, mix_BTH)
        angle_BTHR = angles(dt_BTH1 * torch.pi * torch.tanh(wide(turn_BTR))[:, :, None], angle)
        B_BTHN = rotate(self.B_norm(wide(B_BTN))[:, :, None] + self.B_bias, angle_BTHR)
        C_BTHN = rotate(self.C_norm(wide(C_BTN))[:, :, None] + self.C_bias, angle_BTHR)
        y_BTHP, memory = trapezoidal_attention(
            C_BTHN, B_BTHN, x_BTHP, log_decay_BTH1, dt_BTH1 - end_BTH1, end_BTH1, memory
        )
        y_BTE = (y_BTHP + self.D[:, None] * x_BTHP).flatten(2) * F.silu(wide(gate_BTE))
        after = None if state is None else Mamba3State(angle_BTHR[:, -1].clone(), memory)
        return self.out_proj(y_BTE.to(gate_BTE.dtype)), after

    def steps(self, dt_BTH: Tensor, A_BTH: Tensor, mix_BTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the step sizes, the logarithms of the decays, and the factors of the token, (B, T, H, 1) each."""
        # Adds dt_bias in its own precision: bfloat16 would lose small step sizes, which give long memories.
        dt_BTH1 = F.softplus(dt_BTH.to(self.dt_bias.dtype) + self.dt_bias)[..., None]
        log_decay_BTH1 = -dt_BTH1 * F.softplus(wide(A_BTH)).clamp(min=LEAST_RATE)[..., None]
        return dt_BTH1, log_decay_BTH1, dt_BTH1 * torch.sigmoid(wide(mix_BTH))[..., None]

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays, the factors with which tokens are written, and the output gates."""
        gate_BTE, _, _, _, dt_BTH, A_BTH, mix_BTH, _ = self.in_proj(x_BTD).split(self.widths, dim=-1)
        _, log_decay_BTH1, end_BTH1 = self.steps(dt_BTH, A_BTH, mix_BTH)
        gates = {"gates.decay": log_decay_BTH1.exp(), "gates.write": end_BTH1}
        return gates | {"gates.output": F.silu(wide(gate_BTE))}


def rotating_pairs(d_state: int, rope_fraction: float) -> int:
    """Returns the number of pairs of features of a state that rotate."""
    return math.floor(d_state * rope_fraction) // 2


def angles(turn_BTHR: Tensor, before_BHR: Tensor | None) -> Tensor:
    """Returns the sum of the turns up to each token, from 0 to 2 pi.

    Adds in float64: over thousands of tokens float32 would be off by hundredths of a radian.
    """
    total_BTHR = turn_BTHR.double().cumsum(dim=1)
    if before_BHR is not None:
        total_BTHR = total_BTHR + before_BHR[:, None]
    return total_BTHR.remainder(2 * torch.pi).to(turn_BTHR.dtype)


def rotate(x_BTHN: Tensor, angle_BTHR: Tensor) -> Tensor:
    """Rotates the features 2 r and 2 r + 1 of each head by the angle r; the others pass through."""
    R = angle_BTHR.shape[-1]
    cos, sin = angle_BTHR.cos(), angle_BTHR.sin()
    even, odd = x_BTHN[..., : 2 * R].unflatten(-1, (R, 2)).unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    return torch.cat([rotated, x_BTHN[..., 2 * R :]], dim=-1)
