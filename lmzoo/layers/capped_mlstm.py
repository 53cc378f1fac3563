"""The mLSTM of large models: no convolution, capped gates, queries and keys narrower than values.

Beck et al. 2025, xLSTM 7B, arXiv 2503.13427. Initial values as in the authors' code, but for the output gate, whose
weights are not zero. Legend: B batch, T time, D model width, H heads, K key width, V value width of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.context import Context
from lmzoo.layers.head_norm import HeadNorm
from lmzoo.layers.init import Init, constant, normal, small_init
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops import mlstm
from lmzoo.ops.precision import wide


class CappedMLSTM(Layer):
    """A matrix memory per head: `out(sigmoid(o) * norm(mlstm(q, k, v, i, f)))`, all projected from the input.

    Input and forget gates stay within ±cap before their functions: `cap * tanh(gate / cap)`. `qk_dim` and `v_dim` are
    the widths of all heads together.
    """

    reach = None
    state_growth = "constant"
    keep_float32 = ("gate_bias",)
    gate_bias: Tensor  # (2 H,), of the input gates, then of the forget gates

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        qk_dim: int,
        v_dim: int,
        cap: float = 15.0,
        norm_eps: float = 1e-6,
        init_out: Init = normal(),
    ) -> None:
        super().__init__()
        self.n_heads, self.cap, init = n_heads, cap, small_init(d_model)
        self.widths = [qk_dim, qk_dim, v_dim]
        self.qkv = Linear(d_model, sum(self.widths), bias=False, init=init)
        self.gates = Linear(d_model, 2 * n_heads, bias=False, init=constant(0.0))
        self.own("gate_bias", (2 * n_heads,), _gate_bias)
        self.output_gate = Linear(d_model, v_dim, bias=False, init=init)
        self.norm = HeadNorm(v_dim, norm_eps, bias=False)
        self.out = Linear(v_dim, d_model, bias=False, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> mlstm.MatrixMemory:
        """Returns an empty memory, in float32 or wider."""
        K, _, V = (width // self.n_heads for width in self.widths)
        return mlstm.empty_memory(batch_size, self.n_heads, K, V, like)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory to write, and one to read."""
        return 4.0 * self.widths[0] * (self.widths[2] // self.n_heads + 1)

    def transferable(self) -> dict[str, Projection]:
        heads = [(self.n_heads, width // self.n_heads) for width in self.widths]
        parts = split_rows(self.qkv, **dict(zip("qkv", heads, strict=True)))
        return {**parts, "out": output(self.out, *heads[2])}

    def forward(
        self, x_BTD: Tensor, state: mlstm.MatrixMemory | None, ctx: Context
    ) -> tuple[Tensor, mlstm.MatrixMemory | None]:
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)) for part in self.qkv(x_BTD).split(self.widths, dim=-1))
        i_BTH, f_BTH = self.write_and_keep(x_BTD)
        y_BTHV, memory = mlstm.mlstm(q, wide(k) / math.sqrt(k.shape[-1]), v, i_BTH, F.logsigmoid(f_BTH), state)
        gate_BTE = torch.sigmoid(wide(self.output_gate(x_BTD)))
        y_BTD = self.out((gate_BTE * self.norm(y_BTHV)).to(v.dtype))
        return y_BTD, None if state is None else memory

    def write_and_keep(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the input and the forget gates before their functions, (B, T, H) each."""
        gates_BTG = wide(self.gates(x_BTD)) + self.gate_bias
        i_BTH, f_BTH = (self.cap * torch.tanh(gates_BTG / self.cap)).chunk(2, dim=-1)
        return i_BTH, f_BTH

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the forget gates, the input gates exp(i) and the output gates."""
        i_BTH, f_BTH = self.write_and_keep(x_BTD)
        output_BTE = torch.sigmoid(wide(self.output_gate(x_BTD)))
        return {"gates.decay": f_BTH.sigmoid(), "gates.write": i_BTH.exp(), "gates.output": output_BTE}


def _gate_bias(bias_2H: Tensor, _: torch.Generator | None) -> None:
    """Sets input gates to -10, and forget gates from 3 (first head) to 6 (last head)."""
    i_H, f_H = bias_2H.chunk(2)
    nn.init.constant_(i_H, -10.0)
    f_H.copy_(torch.linspace(3, 6, len(f_H), device=f_H.device))
