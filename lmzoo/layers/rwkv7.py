"""RWKV-7's two mixers (Peng et al. 2025, arXiv 2503.14456, figure 1): time mix and channel mix.

Initial values as in the authors' code. Legend: B batch, T time, D model width, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.head_norm import HeadNorm
from lmzoo.layers.init import Init, constant, normal, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.layers.token_shift import TokenShift
from lmzoo.ops.dplr import dplr
from lmzoo.ops.precision import wide, wide_dtype

FIRST_VALUES = "values of the first layer"  # in `Context.carry`
FASTEST_DECAY = math.exp(-0.5)  # the log of a decay lies between -FASTEST_DECAY and 0
SHIFTS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)  # exponents of the initial mixtures for r, decay, k, v, rate and gate


class Ranks(NamedTuple):
    """Ranks of the low-rank maps of a `TimeMix`."""

    decay: int
    rate: int
    value: int
    gate: int


class LowRank(Layer):
    """`bias + up(activation(down(x)))`, with the bias added in its own precision."""

    reach = 1
    keep_float32 = ("bias",)
    bias: Tensor | None  # (D,)

    def __init__(
        self, d_model: int, rank: int, bias: Init | None, activation: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = Linear(d_model, rank, bias=False, init=constant(0.0))
        self.up = Linear(rank, d_model, bias=False, init=normal(0.1 * d_model**-0.5))
        if bias is None:
            self.register_parameter("bias", None)
        else:
            self.own("bias", (d_model,), bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTR = self.down(x_BTD)
        y_BTD = self.up(h_BTR if self.activation is None else self.activation(h_BTR))
        return y_BTD if self.bias is None else y_BTD.to(self.bias.dtype) + self.bias


class TimeMixState(NamedTuple):
    """The decoding state of a `TimeMix`."""

    before: Tensor  # (B, D), the last token
    memory: Tensor  # (B, H, K, K), keys by values, float32 or wider


class TimeMix(Layer):
    """A matrix S per head, corrected by a generalized delta rule whose parts all depend on the token.

    `depth` is the index of the layer and the number of layers. The first layer leaves its values in the context;
    later layers mix their own values with them.
    """

    reach = None
    state_growth = "constant"
    k_k: Tensor  # (D,), scales keys before they are normalized for removal
    k_a: Tensor  # (D,), how much the rate scales the keys that are written
    r_k: Tensor  # (D,), weight of the present token's value beside the memory

    def __init__(self, d_model: int, head_dim: int, ranks: Ranks, depth: tuple[int, int]) -> None:
        super().__init__()
        self.head_dim, (layer, n_layers) = head_dim, depth
        self.shift = TokenShift(d_model, len(SHIFTS), partial(_mixtures, [p * (1 - layer / n_layers) for p in SHIFTS]))
        self.receptance = Linear(d_model, d_model, bias=False, init=uniform_fan_in(0.5))
        self.key = Linear(d_model, d_model, bias=False, init=uniform_fan_in(0.05))
        self.value = Linear(d_model, d_model, bias=False, init=uniform_fan_in(0.5))
        self.out = Linear(d_model, d_model, bias=False, init=constant(0.0))
        self.decay = LowRank(d_model, ranks.decay, partial(_decays, layer / max(1, n_layers - 1)), torch.tanh)
        self.rate = LowRank(d_model, ranks.rate, constant(0.0))
        self.residual = LowRank(d_model, ranks.value, constant(1.0)) if layer > 0 else None
        self.gate = LowRank(d_model, ranks.gate, None, torch.sigmoid)
        self.own("k_k", (d_model,), constant(0.85))
        self.own("k_a", (d_model,), constant(1.0))
        self.own("r_k", (d_model,), constant(0.0))
        self.norm = HeadNorm(d_model, eps=64e-5)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> TimeMixState:
        """Returns zeros for the last token and for the matrices."""
        H, K = len(self.k_k) // self.head_dim, self.head_dim
        memory_BHKV = like.new_zeros(batch_size, H, K, K, dtype=wide_dtype(like.dtype))
        return TimeMixState(self.shift.init_state(batch_size, max_len, like), memory_BHKV)

    def transferable(self) -> dict[str, Projection]:
        heads = (len(self.k_k) // self.head_dim, self.head_dim)
        parts = {**split_rows(self.receptance, q=heads), **split_rows(self.key, k=heads)}
        return {**parts, **split_rows(self.value, v=heads), "out": output(self.out, *heads)}

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of S for each of two reads and two writes."""
        return 8.0 * len(self.k_k) * self.head_dim

    def forward(self, x_BTD: Tensor, state: TimeMixState | None, ctx: Context) -> tuple[Tensor, TimeMixState | None]:
        before, memory = (None, None) if state is None else state
        mixed_NBTD, before = self.shift(x_BTD, before, ctx)
        for_r, for_decay, for_k, for_v, for_rate, for_gate = mixed_NBTD
        r_BTD, k_BTD, v_BTD = self.receptance(for_r), self.key(for_k), self.value(for_v)
        if self.residual is None:
            ctx.carry[FIRST_VALUES] = v_BTD
        else:
            v_BTD = v_BTD + (ctx.carry[FIRST_VALUES] - v_BTD) * self.residual(for_v).sigmoid()
        log_w_BTD = self.log_decay(for_decay)
        rate_BTD = self.rate(for_rate).sigmoid()  # the learning rate of the delta rule, for each key feature
        removed_BTHK = F.normalize(self.heads(wide(k_BTD * self.k_k)), dim=-1)
        k_BTD = k_BTD * (1 + (rate_BTD - 1) * self.k_a)
        r, log_w, k, v, rate = (self.heads(part) for part in (r_BTD, log_w_BTD, k_BTD, v_BTD, rate_BTD))
        y_BTHK, memory = dplr(r, log_w, k, v, -removed_BTHK, removed_BTHK * rate, memory)
        bonus_BTH1 = (r * k * self.heads(self.r_k)).sum(dim=-1, keepdim=True)
        y_BTD = self.norm(y_BTHK) + (bonus_BTH1 * v).flatten(2)
        gate_BTD = self.gate(for_gate)
        y_BTD = self.out(y_BTD.to(gate_BTD.dtype) * gate_BTD)
        return y_BTD, None if state is None else TimeMixState(before, memory)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the decays of the key features, (B, T, D), in float32 or wider."""
        return -FASTEST_DECAY * wide(self.decay(x_BTD)).sigmoid()

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the decays, the learning rates and the output gates, (B, T, D) each."""
        mixed_NBTD, _ = self.shift(x_BTD, None, ctx)
        _, for_decay, _, _, for_rate, for_gate = mixed_NBTD
        gates = {"gates.decay": self.log_decay(for_decay).exp(), "gates.write": self.rate(for_rate).sigmoid()}
        return gates | {"gates.output": self.gate(for_gate)}

    def heads(self, x: Tensor) -> Tensor:
        """Splits the last dimension: (..., D) to (..., H, K)."""
        return x.unflatten(-1, (-1, self.head_dim))


class ChannelMix(Layer):
    """A feed-forward layer with squared ReLU over shifted tokens: `down(relu(up(x))²)`. Its state is the last token."""

    reach = 2
    state_growth = "constant"

    def __init__(self, d_model: int, d_ff: int, depth: tuple[int, int]) -> None:
        super().__init__()
        self.shift = TokenShift(d_model, 1, partial(_mixtures, [(1 - depth[0] / depth[1]) ** 4]))
        self.up = Linear(d_model, d_ff, bias=False, init=uniform_fan_in(0.5))
        self.down = Linear(d_ff, d_model, bias=False, init=constant(0.0))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, D): the token before the first one."""
        return self.shift.init_state(batch_size, max_len, like)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        mixed_NBTD, state = self.shift(x_BTD, state, ctx)
        return self.down(self.up(mixed_NBTD[0]).relu().square()), state


def _mixtures(exponents: list[float], mix_ND: Tensor, _: torch.Generator | None) -> None:
    """Sets ramps over the features, from 1 (only the token before) towards 0: 1 - (d / D)^exponent."""
    D = mix_ND.shape[1]
    ramp_D = torch.arange(D, device=mix_ND.device) / D
    mix_ND.copy_(torch.stack([1 - ramp_D**exponent for exponent in exponents]))


def _decays(depth: float, bias_D: Tensor, _: torch.Generator | None) -> None:
    """Sets a ramp over the features, from slow to fast decay; `depth` goes from 0 (first layer) to 1 (last)."""
    D = len(bias_D)
    ramp_D = torch.arange(D, device=bias_D.device) / max(1, D - 1)
    bias_D.copy_(-6.5 + 5 * ramp_D ** (0.85 + depth**0.5))
