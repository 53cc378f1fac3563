"""xLSTM's two mixers (Beck et al. 2024, arXiv 2405.04517, figures 9 and 10): mLSTM and sLSTM.

Initial values as in the authors' code. Legend: B batch, T time, D model width, E inner width, H heads, K head width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.block_linear import BlockLinear
from lmzoo.layers.context import Context
from lmzoo.layers.head_norm import HeadNorm
from lmzoo.layers.init import Init, constant, normal, small_init
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.lstm import shifted
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops import mlstm, slstm
from lmzoo.ops.precision import wide


class MLSTMState(NamedTuple):
    """The decoding state of an `MLSTM`."""

    tail: Tensor  # (B, W - 1, E), the convolution's last inputs
    memory: mlstm.MatrixMemory


class MLSTM(Layer):
    """A matrix memory per head with exponential input gates, between an up- and a down-projection."""

    reach = None
    state_growth = "constant"
    keep_float32 = ("gate_bias",)
    gate_bias: Tensor  # (2 H,), of the input gates, then of the forget gates
    skip: Tensor  # (E,), weight of the convolution's output beside the memory

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        expand: int = 2,
        d_conv: int = 4,
        qkv_block: int = 4,
        norm_eps: float = 1e-5,
        init_out: Init = normal(),
    ) -> None:
        super().__init__()
        self.n_heads, E, init = n_heads, expand * d_model, small_init(d_model)
        self.up = Linear(d_model, 2 * E, bias=False, init=init)
        self.conv = ShortConv(E, d_conv)
        self.q, self.k, self.v = (BlockLinear(E, E // qkv_block, init) for _ in range(3))
        self.gates = Linear(3 * E, 2 * n_heads, bias=False, init=constant(0.0))
        self.own("gate_bias", (2 * n_heads,), _mlstm_bias)
        self.norm = HeadNorm(E, norm_eps, bias=False)
        self.own("skip", (E,), constant(1.0))
        self.down = Linear(E, d_model, bias=False, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> MLSTMState:
        """Returns zeros for the convolution's last inputs, and an empty memory."""
        K = len(self.skip) // self.n_heads
        memory = mlstm.empty_memory(batch_size, self.n_heads, K, K, like)
        return MLSTMState(self.conv.init_state(batch_size, max_len, like), memory)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory to write, and one to read."""
        E = len(self.skip)
        return 4.0 * E * (E // self.n_heads + 1)

    def forward(self, x_BTD: Tensor, state: MLSTMState | None, ctx: Context) -> tuple[Tensor, MLSTMState | None]:
        tail, memory = (None, None) if state is None else state
        x_BTE, z_BTE = self.up(x_BTD).chunk(2, dim=-1)
        mixed_BTE, tail = self.conv(x_BTE, tail, ctx)
        qkv, i_BTH, f_BTH = self.project(x_BTE, mixed_BTE)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)) for part in qkv)
        y_BTHK, memory = mlstm.mlstm(q, wide(k) / math.sqrt(k.shape[-1]), v, i_BTH, F.logsigmoid(f_BTH), memory)
        y_BTE = self.norm(y_BTHK) + self.skip * mixed_BTE
        y_BTD = self.down(y_BTE.to(z_BTE.dtype) * F.silu(z_BTE))
        return y_BTD, None if state is None else MLSTMState(tail, memory)

    def project(self, x_BTE: Tensor, mixed_BTE: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Returns queries, keys and values (B, T, E), and the input and forget gates before their functions."""
        q_BTE, k_BTE, v_BTE = self.q(mixed_BTE), self.k(mixed_BTE), self.v(x_BTE)
        gates_BTG = wide(self.gates(torch.cat([q_BTE, k_BTE, v_BTE], dim=-1))) + self.gate_bias
        i_BTH, f_BTH = gates_BTG.chunk(2, dim=-1)
        return (q_BTE, k_BTE, v_BTE), i_BTH, f_BTH

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the forget gates, the input gates exp(i) and the output gates."""
        x_BTE, z_BTE = self.up(x_BTD).chunk(2, dim=-1)
        mixed_BTE, _ = self.conv(x_BTE, None, ctx)
        _, i_BTH, f_BTH = self.project(x_BTE, mixed_BTE)
        return {"gates.decay": f_BTH.sigmoid(), "gates.write": i_BTH.exp(), "gates.output": F.silu(z_BTE)}


class SLSTMState(NamedTuple):
    """The decoding state of an `SLSTM`."""

    tail: Tensor  # (B, W - 1, D), the convolution's last inputs
    memory: slstm.ScalarMemory


class SLSTM(Layer):
    """LSTM cells with exponential input gates, whose gates read the last output of their own head.

    Input and forget gate read the output of a convolution, the other two the input. `depth`, from 0 for the first to 1
    for the last layer, sets the initial forget gates.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("gate_bias", "recurrent")  # applied at every step
    recurrent: Tensor  # (H, 4 K, K)
    gate_bias: Tensor  # (H, 4 K), of i, f, z, o

    def __init__(
        self, d_model: int, n_heads: int, *, d_conv: int = 4, norm_eps: float = 1e-5, depth: float = 0.0
    ) -> None:
        super().__init__()
        self.n_heads, K = n_heads, d_model // n_heads
        self.conv = ShortConv(d_model, d_conv)
        self.i, self.f, self.z, self.o = (BlockLinear(d_model, n_heads, small_init(d_model)) for _ in range(4))
        self.own("recurrent", (n_heads, 4 * K, K), constant(0.0), "matrices")
        self.own("gate_bias", (n_heads, 4 * K), partial(_slstm_bias, depth), "vector")
        self.norm = HeadNorm(d_model, norm_eps, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> SLSTMState:
        """Returns zeros for the convolution's last inputs, and an empty memory."""
        H, _, K = self.recurrent.shape
        memory = slstm.empty_memory(batch_size, H, K, like)
        return SLSTMState(self.conv.init_state(batch_size, max_len, like), memory)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the recurrent map."""
        return 2.0 * self.recurrent.numel()

    def forward(self, x_BTD: Tensor, state: SLSTMState | None, ctx: Context) -> tuple[Tensor, SLSTMState | None]:
        tail, memory = (None, None) if state is None else state
        mixed_BTD, tail = self.conv(x_BTD, tail, ctx)
        y_BTHK, memory = slstm.slstm(self.gates(x_BTD, mixed_BTD), self.recurrent, memory)
        return self.norm(y_BTHK).to(x_BTD.dtype), None if state is None else SLSTMState(tail, memory)

    def gates(self, x_BTD: Tensor, mixed_BTD: Tensor) -> Tensor:
        """Returns the parts of the gates i, f, z and o that do not depend on the last output, (B, T, H, 4 K)."""
        gates = (self.i(mixed_BTD), self.f(mixed_BTD), self.z(x_BTD), self.o(x_BTD))
        gates_BTHG = torch.cat([gate_BTD.unflatten(-1, (self.n_heads, -1)) for gate_BTD in gates], dim=-1)
        return wide(gates_BTHG) + self.gate_bias

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the forget gates, the input gates exp(i) and the output gates, which depend on the last output."""
        mixed_BTD, _ = self.conv(x_BTD, None, ctx)
        gates_BTHG = self.gates(x_BTD, mixed_BTD)
        y_BTHK, _ = slstm.slstm(gates_BTHG, self.recurrent, None)
        i, f, _, o = (gates_BTHG + torch.einsum("bthk,hgk->bthg", shifted(y_BTHK), self.recurrent)).chunk(4, dim=-1)
        return {"gates.decay": f.sigmoid(), "gates.write": i.exp(), "gates.output": o.sigmoid()}


def _mlstm_bias(bias_2H: Tensor, generator: torch.Generator | None) -> None:
    """Draws input gates from N(0, 0.1²), and sets forget gates from 3 (first head) to 6 (last head)."""
    i_H, f_H = bias_2H.chunk(2)
    nn.init.normal_(i_H, std=0.1, generator=generator)
    f_H.copy_(torch.linspace(3, 6, len(f_H), device=f_H.device))


def _slstm_bias(depth: float, bias_HG: Tensor, _: torch.Generator | None) -> None:
    """Sets the forget gates of each head from 5 (keeps) to -7 (forgets), the other gates to 0."""
    nn.init.zeros_(bias_HG)
    f_HK = bias_HG.chunk(4, dim=-1)[1]
    K = f_HK.shape[1]
    ramp_K = torch.arange(K, device=f_HK.device) / max(1, K - 1)
    f_HK.copy_((5 - 12 * ramp_K ** (0.3 + 1.3 * depth)).expand_as(f_HK))
