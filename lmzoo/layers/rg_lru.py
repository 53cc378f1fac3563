"""Griffin's recurrent block (De et al. 2024, arXiv 2402.19427, figure 2 and section 2.4): convolution, RG-LRU, gate.

Initial values of the projections as in the authors' code, of the decays as in the paper. Legend: B batch, T time,
D model width, E inner width, N blocks of the gates, K = E / N.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init, constant, normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.causal_conv1d import causal_conv1d
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.ops.linear_recurrence import linear_recurrence
from lmzoo.ops.precision import wide, wide_dtype

SHARPNESS = 8.0  # c in the paper: an open recurrence gate multiplies the log of the decay by it
LEAST_DECAY, GREATEST_DECAY = 0.9, 0.999  # of a channel with an open gate, initially


class RGLRUState(NamedTuple):
    """The decoding state of the layer."""

    tail: Tensor  # (B, W - 1, E), the convolution's last inputs
    h: Tensor  # (B, E), float32 or wider


class RGLRU(Layer):
    """The real-gated linear recurrent unit between a short convolution and an output gate.

    `h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t)` with `a_t = exp(-8 r_t softplus(decay))`: the gates i and r do not
    depend on h, so the recurrence is linear. The factor of the input keeps the variance of h at the variance of u.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("decay",)  # decays close to one do not survive 16 bits
    conv_weight: Tensor  # (E, W)
    conv_bias: Tensor  # (E,)
    gates: Tensor  # (2 N, K, K), block-diagonal maps of the input gate, then of the recurrence gate
    gate_bias: Tensor  # (2 N, K)
    decay: Tensor  # (E,), minus the paper's Lambda

    def __init__(
        self,
        d_model: int,
        n_blocks: int,
        *,
        d_rnn: int | None = None,
        d_conv: int = 4,
        init_out: Init | None = None,
    ) -> None:
        super().__init__()
        self.n_blocks, E = n_blocks, d_rnn or d_model
        K = E // n_blocks
        self.in_proj = Linear(d_model, 2 * E, init=normal(d_model**-0.5))
        self.own("conv_weight", (E, d_conv), normal((0.01 / d_conv) ** 0.5), "vector")
        self.own("conv_bias", (E,), constant(0.0))
        self.own("gates", (2 * n_blocks, K, K), normal(K**-0.5), "matrices")
        self.own("gate_bias", (2 * n_blocks, K), constant(0.0), "vector")
        self.own("decay", (E,), _decays)
        self.out = Linear(E, d_model, init=init_out or normal(E**-0.5))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> RGLRUState:
        """Returns zeros for the convolution's last inputs and for h."""
        E, width = self.conv_weight.shape
        h_BE = like.new_zeros(batch_size, E, dtype=wide_dtype(like.dtype))
        return RGLRUState(like.new_zeros(batch_size, width - 1, E), h_BE)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the convolution's taps and the maps of the gates."""
        return 2.0 * (self.conv_weight.numel() + self.gates.numel())

    def forward(self, x_BTD: Tensor, state: RGLRUState | None, ctx: Context) -> tuple[Tensor, RGLRUState | None]:
        tail, h = (None, None) if state is None else state
        gate_BTE, u_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, tail = causal_conv1d(u_BTE, self.conv_weight, self.conv_bias, tail)
        a_BTE, factor_BTE = self.coefficients(u_BTE, ctx)
        h_BTE, h = linear_recurrence(a_BTE, factor_BTE * wide(u_BTE), h)
        y_BTD = self.out(gelu_tanh(gate_BTE) * h_BTE.to(gate_BTE.dtype))
        return y_BTD, None if state is None else RGLRUState(tail, h)

    def coefficients(self, u_BTE: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Returns the factors of h and of the input in the recurrence, (B, T, E), in float32 or wider."""
        i_BTE, r_BTE = self.input_and_recurrence_gates(u_BTE)
        log_a_BTE = -SHARPNESS * r_BTE * F.softplus(wide(self.decay))
        # 1 - a^2 without cancellation. The small number keeps the derivative of the root finite where a = 1.
        scale_BTE = torch.sqrt(1e-12 - torch.expm1(2 * log_a_BTE))
        first_T1 = (ctx.positions_T == 0)[:, None]  # h has no variance yet: the first input enters whole
        return log_a_BTE.exp(), torch.where(first_T1, 1.0, scale_BTE) * i_BTE

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the factors of h, of the input and of the output."""
        gate_BTE, u_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, _ = causal_conv1d(u_BTE, self.conv_weight, self.conv_bias, None)
        a_BTE, factor_BTE = self.coefficients(u_BTE, ctx)
        return {"gates.decay": a_BTE, "gates.write": factor_BTE, "gates.output": gelu_tanh(gate_BTE)}

    def input_and_recurrence_gates(self, u_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gates i and r (B, T, E), each from 0 to 1, in float32 or wider."""
        u_BTNK = u_BTE.unflatten(-1, (self.n_blocks, -1))
        weight_2NKK, bias_2NK = (x.to(u_BTE.dtype).unflatten(0, (2, -1)) for x in (self.gates, self.gate_bias))
        scores = (torch.einsum("btnk,nkl->btnl", u_BTNK, w) + b for w, b in zip(weight_2NKK, bias_2NK, strict=True))
        i_BTE, r_BTE = (wide(score_BTNK).sigmoid().flatten(2) for score_BTNK in scores)
        return i_BTE, r_BTE


def _decays(decay_E: Tensor, generator: torch.Generator | None) -> None:
    """Draws decays a^c for open gates, c = `SHARPNESS`, and sets `decay` so that c softplus(decay) = -log(a^c)."""
    decay_E.uniform_(LEAST_DECAY, GREATEST_DECAY, generator=generator)
    decay_E.copy_(torch.expm1(-decay_E.log() / SHARPNESS).log())
