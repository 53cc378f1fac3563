"""State-space layers with a diagonal matrix that does not depend on the token: S4D and S5.

S4D (Gu et al. 2022, arXiv 2206.11893, S4D-Lin) has N states for each channel; S5 (Smith et al. 2022, arXiv 2208.04933)
has N states for the layer, which read and write all channels. Each complex state stands for itself and its conjugate,
and is a pair of real numbers in the last axis. Both layers end with GELU and a gated linear unit, as in the authors'
code. Legend: B batch, T time, D model width, N complex states, 2 real and imaginary part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import constant, normal, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.diagonal_scan import diagonal_scan, times
from lmzoo.ops.diagonal_ssm import diagonal_ssm
from lmzoo.ops.precision import wide, wide_dtype

LEAST_STEP, GREATEST_STEP = 1e-3, 0.1  # initial step sizes are log-uniform between these


class S4D(Layer):
    """A state-space model of N complex states for each channel, then GELU, a linear map and a gate.

    With `a = exp(dt A)` and `b = (a - 1) / A`: `h_t = a h_{t-1} + u_t`, `y_t = 2 Re(b C . h_t) + D u_t`. The state is
    (B, D, N, 2), float32 or wider.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("log_dt", "log_rate", "frequency")  # decays close to one do not survive 16 bits
    log_dt: Tensor  # (D,), of the step sizes
    log_rate: Tensor  # (D, N), of the decay rates: A = -exp(log_rate) + i frequency
    frequency: Tensor  # (D, N)
    C: Tensor  # (D, N, 2)
    D: Tensor  # (D,), weight of the direct path

    def __init__(self, d_model: int, *, d_state: int = 64) -> None:
        super().__init__()
        N = d_state // 2
        self.own("log_dt", (d_model,), log_step_sizes)
        self.own("log_rate", (d_model, N), constant(math.log(0.5)), "vector")
        self.own("frequency", (d_model, N), linear_frequencies, "vector")
        self.own("C", (d_model, N, 2), normal(math.sqrt(0.5)), "vector")
        self.own("D", (d_model,), normal(1.0))
        self.out = Linear(d_model, 2 * d_model, init=uniform_fan_in(), bias_init=constant(0.0))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns states of zero."""
        return like.new_zeros(batch_size, *self.C.shape, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: 4 multiply-adds to turn each state, and 2 to read it."""
        return 12.0 * self.frequency.numel()

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        u_BTD = wide(x_BTD)
        a_DN2, b_DN2 = discretized(self.log_dt[:, None], self.log_rate, self.frequency)
        y_BTD, h_BDN2 = diagonal_ssm(u_BTD, a_DN2, times(b_DN2, self.C.to(b_DN2.dtype)), state)
        y_BTD = F.gelu(y_BTD + self.D * u_BTD).to(x_BTD.dtype)
        return F.glu(self.out(y_BTD)), None if state is None else h_BDN2


class S5(Layer):
    """A state-space model of N complex states for all channels, then GELU, a linear map and a gate.

    With `a = exp(dt A)` and `b = (a - 1) / A`: `h_t = a h_{t-1} + b (B u_t)`, `y_t = C h_t + D u_t`. B and C are real
    maps to and from the pairs of real and imaginary parts. The state is (B, N, 2), float32 or wider.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("log_dt", "log_rate", "frequency")  # decays close to one do not survive 16 bits
    log_dt: Tensor  # (N,), of the step sizes
    log_rate: Tensor  # (N,), of the decay rates: A = -exp(log_rate) + i frequency
    frequency: Tensor  # (N,)
    D: Tensor  # (D,), weight of the direct path

    def __init__(self, d_model: int, *, d_state: int = 64) -> None:
        super().__init__()
        N = d_state // 2
        self.own("log_dt", (N,), log_step_sizes)
        self.own("log_rate", (N,), constant(math.log(0.5)))
        self.own("frequency", (N,), hippo_frequencies)
        self.B = Linear(d_model, 2 * N, bias=False, init=normal(math.sqrt(0.5 / d_model)))
        self.C = Linear(2 * N, d_model, bias=False, init=normal(math.sqrt(2 / N)))
        self.own("D", (d_model,), normal(1.0))
        self.out = Linear(d_model, 2 * d_model, init=uniform_fan_in(), bias_init=constant(0.0))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns states of zero."""
        return like.new_zeros(batch_size, len(self.frequency), 2, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: 4 multiply-adds to turn each state."""
        return 8.0 * len(self.frequency)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        a_N2, b_N2 = discretized(self.log_dt, self.log_rate, self.frequency)
        input_BTN2 = times(b_N2, wide(self.B(x_BTD)).unflatten(-1, (-1, 2)))
        h_BTN2, last = diagonal_scan(a_N2, input_BTN2, state)
        y_BTD = self.C(h_BTN2.flatten(2).to(x_BTD.dtype)) + self.D * x_BTD
        return F.glu(self.out(F.gelu(y_BTD).to(x_BTD.dtype))), None if state is None else last


def discretized(log_dt: Tensor, log_rate: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Returns exp(dt A) and (exp(dt A) - 1) / A for A = -exp(log_rate) + i frequency: zero-order hold.

    In float32 or wider. Complex numbers are pairs in the last axis. For small steps exp(dt A) - 1 would cancel; no
    term of it here does.
    """
    dt, rate, frequency = wide(log_dt).exp(), wide(log_rate).exp(), wide(frequency)
    size, turn = torch.exp(-dt * rate), dt * frequency
    a_2 = torch.stack([size * turn.cos(), size * turn.sin()], dim=-1)
    less_one = torch.expm1(-dt * rate) * turn.cos() - 2 * torch.sin(turn / 2).square()
    inverse_2 = torch.stack([-rate, -frequency], dim=-1) / (rate.square() + frequency.square())[..., None]
    return a_2, times(torch.stack([less_one, a_2[..., 1]], dim=-1), inverse_2)


def log_step_sizes(w: Tensor, generator: torch.Generator | None) -> None:
    """Draws logarithms of step sizes uniformly."""
    w.uniform_(math.log(LEAST_STEP), math.log(GREATEST_STEP), generator=generator)


def linear_frequencies(w_DN: Tensor, _: torch.Generator | None) -> None:
    """Sets the n-th state of every channel to n half turns in a unit of time (S4D-Lin)."""
    w_DN.copy_((math.pi * torch.arange(w_DN.shape[-1], device=w_DN.device)).expand_as(w_DN))


def hippo_frequencies(w_N: Tensor, _: torch.Generator | None) -> None:
    """Sets the frequencies of HiPPO-N, the normal part of the HiPPO matrix of 2 N real states.

    This part is -1/2 plus an antisymmetric matrix, whose eigenvalues are pairs ± i frequency.
    """
    root = (2 * torch.arange(2 * len(w_N), dtype=torch.float64) + 1).sqrt()
    lower = torch.tril(torch.outer(root, root), diagonal=-1) / 2
    w_N.copy_(torch.linalg.eigvalsh(1j * (lower.T - lower))[len(w_N) :])
