"""TTT-Linear's mixer (Sun et al. 2024, arXiv 2407.04620): the state is a linear model that each token trains.

Legend: B batch, T time, D model width, F filter length, H heads, K head width, J = K + 1 rows of the memory, of which
the last one is its bias, R half of K.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import constant, normal, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.causal_conv1d import causal_conv1d
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.ops.rope import apply_rope, rope_table
from lmzoo.ops.ttt import Decays, InnerNorm, Memory, ttt
from lmzoo.state import clone


class TTTState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, F - 1, D), the convolutions' last inputs
    memory: Memory


class TTT(Layer):
    """An inner model `f(x) = x + LN(x W)` per head, trained to map keys to values, and read at the query.

    Each token takes one step of gradient descent on W with a learning rate of its own. The gradients of `mini_batch`
    tokens are taken at the same W, and the rates are divided by that number: a mini-batch moves W by a mean. Queries
    and keys are two short convolutions of one projection, rotated by the position in the mini-batch. With `titans` the
    steps have momentum, and W decays (Behrouz et al. 2025, arXiv 2501.00663).
    """

    reach = None
    state_growth = "constant"
    q_filter: Tensor  # (D, F)
    k_filter: Tensor  # (D, F)
    q_bias: Tensor  # (D,)
    k_bias: Tensor  # (D,)
    first_weight: Tensor  # (H, K, K)
    first_bias: Tensor  # (H, K)
    inner_weight: Tensor  # (H, K), of the inner layer norm
    inner_bias: Tensor  # (H, K)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        mini_batch: int = 16,
        d_conv: int = 4,
        base_rate: float = 1.0,
        rope_theta: float = 10000.0,
        titans: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.mini_batch, self.base_rate, self.rope_theta, self.norm_eps = mini_batch, base_rate, rope_theta, norm_eps
        self.projections = Linear(d_model, 3 * d_model, bias=False)  # of queries and keys, values, the output gate
        for name in ("q", "k"):
            self.own(f"{name}_filter", (d_model, d_conv), uniform_fan_in(), "vector")
            self.own(f"{name}_bias", (d_model,), constant(0.0))
        self.rate = Linear(d_model, n_heads)
        self.decays = Linear(d_model, 2 * n_heads, bias_init=_slow_forgetting) if titans else None
        self.own("first_weight", (n_heads, self.head_dim, self.head_dim), normal(), "matrices")
        self.own("first_bias", (n_heads, self.head_dim), constant(0.0), "vector")
        self.own("inner_weight", (n_heads, self.head_dim), constant(1.0), "vector")
        self.own("inner_bias", (n_heads, self.head_dim), constant(0.0), "vector")
        self.norm = LayerNorm(d_model, norm_eps)
        self.out = Linear(d_model, d_model, bias=False)

    def first_memory(self, batch_size: int, dtype: torch.dtype) -> Memory:
        """Returns the learned W before the first token, in `dtype`."""
        W_HJK = torch.cat([self.first_weight, self.first_bias[:, None]], dim=1).to(dtype)
        W_BHJK = W_HJK.expand(batch_size, -1, -1, -1)
        return Memory(W_BHJK, W_BHJK, None if self.decays is None else torch.zeros_like(W_BHJK))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> TTTState:
        """Returns zeros for the convolutions' last inputs and the velocity, and the learned W."""
        d_model, width = self.q_filter.shape
        with torch.no_grad():  # a state has no gradients and shares no memory with the weights
            memory = clone(self.first_memory(batch_size, wide_dtype(like.dtype)))
        return TTTState(like.new_zeros(batch_size, width - 1, d_model), memory)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: two reads and one write of W, and the taps of the convolutions."""
        return 6.0 * self.n_heads * (self.head_dim + 1) * self.head_dim + 4.0 * self.q_filter.numel()

    def transferable(self) -> dict[str, Projection]:
        heads = (self.n_heads, self.head_dim)
        v = split_rows(self.projections, qk=heads, v=heads, gate=heads)["v"]
        return {"v": v, "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: TTTState | None, ctx: Context) -> tuple[Tensor, TTTState | None]:
        first = self.first_memory(len(x_BTD), wide_dtype(x_BTD.dtype))
        tail, memory = (None, first) if state is None else state
        qk_BTD, v_BTD, gate_BTD = self.projections(x_BTD).chunk(3, dim=-1)
        q_BTD, _ = causal_conv1d(qk_BTD, self.q_filter, self.q_bias, tail)
        k_BTD, tail = causal_conv1d(qk_BTD, self.k_filter, self.k_bias, tail)
        q_BTHK, k_BTHK, v_BTHK = (x.unflatten(-1, (self.n_heads, self.head_dim)) for x in (q_BTD, k_BTD, v_BTD))
        table = self._rotations(ctx)
        q_BTHK, k_BTHK = apply_rope(q_BTHK, *table), apply_rope(k_BTHK, *table)
        rate_BTH = self.rates(x_BTD)
        norm = InnerNorm(self.inner_weight, self.inner_bias, self.norm_eps)
        step = {"mini_batch": self.mini_batch, "position": ctx.position}
        y_BTHK, memory = ttt(q_BTHK, k_BTHK, v_BTHK, rate_BTH, norm, memory, self._decays(x_BTD), **step)
        y_BTD = gelu_tanh(gate_BTD) * self.norm(y_BTHK.flatten(2))
        return self.out(y_BTD), None if state is None else TTTState(tail, memory)

    def rates(self, x_BTD: Tensor) -> Tensor:
        """Returns the learning rates of the tokens, (B, T, H), in float32 or wider."""
        largest_rate = self.base_rate / (self.head_dim * self.mini_batch)
        return largest_rate * wide(self.rate(x_BTD)).sigmoid()

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the learning rates, the output gates, and with `titans` the decays of W."""
        _, _, gate_BTD = self.projections(x_BTD).chunk(3, dim=-1)
        offered = {"gates.write": self.rates(x_BTD), "gates.output": gelu_tanh(gate_BTD)}
        decays = self._decays(x_BTD)
        return offered if decays is None else offered | {"gates.decay": decays.log_keep_BTH.exp()}

    def _rotations(self, ctx: Context) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines (T, K/2) for the positions in the mini-batch."""
        dtype = wide_dtype(ctx.dtype)
        table = rope_table(0, self.mini_batch, self.head_dim, self.rope_theta, device=ctx.device, dtype=dtype)
        cos_TR, sin_TR = (x[ctx.positions_T % self.mini_batch] for x in table)
        return cos_TR, sin_TR

    def _decays(self, x_BTD: Tensor) -> Decays | None:
        """Returns log(1 - forgetting) and log(momentum), sigmoids of the input, in float32 or wider."""
        if self.decays is None:
            return None
        forget_BTH, momentum_BTH = wide(self.decays(x_BTD)).chunk(2, dim=-1)
        return Decays(F.logsigmoid(-forget_BTH), F.logsigmoid(momentum_BTH))


def _slow_forgetting(bias: Tensor, _: torch.Generator | None) -> None:
    """Sets the biases so that at first a token forgets 2 % of the memory, and half of the velocity is kept."""
    bias.zero_()[: len(bias) // 2] = -4.0
