"""The mixer of log-linear Mamba-2 (Guo et al. 2025, arXiv 2506.04761): a memory for each scale of distance.

Legend: B batch, T time, D model width, H heads, N state width, P head width, L levels, J blocks of the state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init, constant, uniform_fan_in
from lmzoo.layers.linear import Linear
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.ops.log_linear_attention import count_levels, log_linear_attention
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.state import TimeBuffer


class LogLinearState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, E + 2 G N), the convolution's last inputs
    memory: TimeBuffer  # (B, J, H, N, P), an entry for each binary digit of the number of tokens, float32 or wider


class LogLinearMamba2(Mamba2):
    """Mamba-2 whose memory is divided into blocks of 1, 2, 4, ... tokens, each read with a weight of its own.

    The weights of a token are `softplus(level_scale * levels(x))`, one for each head and level; blocks beyond the last
    level share its weight.
    """

    state_growth = "logarithmic"
    level_scale: Tensor  # (H, L)

    def __init__(
        self,
        d_model: int,
        *,
        n_levels: int = 15,
        d_state: int = 64,
        head_dim: int = 64,
        n_groups: int = 1,
        d_conv: int = 4,
        expand: int = 2,
        norm_eps: float = 1e-5,
        init_out: Init = uniform_fan_in(),
    ) -> None:
        super().__init__(
            d_model,
            d_state=d_state,
            head_dim=head_dim,
            n_groups=n_groups,
            d_conv=d_conv,
            expand=expand,
            norm_eps=norm_eps,
            init_out=init_out,
        )
        self.levels = Linear(d_model, self.n_heads * n_levels, bias=False, init=uniform_fan_in())
        self.own("level_scale", (self.n_heads, n_levels), constant(1.0), "vector")

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> LogLinearState:  # type: ignore[override]
        """Returns zeros for the convolution's last inputs, and no blocks, with memory for those of `max_len` tokens."""
        shape = (self.n_heads, self.d_state, self.head_dim)
        kept = {"device": like.device, "dtype": wide_dtype(like.dtype)}
        memory = TimeBuffer.empty(batch_size, max_len.bit_length(), *shape, **kept)
        return LogLinearState(self.conv.init_state(batch_size, max_len, like), memory)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of a memory to write, and to read each level."""
        return 2.0 * self.n_heads * self.head_dim * self.d_state * (1 + count_levels(T))

    def scan(
        self,
        q_BTHN: Tensor,
        k_BTHN: Tensor,
        v_BTHP: Tensor,
        log_decay_BTH1: Tensor,
        memory: TimeBuffer | None,
        x_BTD: Tensor,
        ctx: Context,
    ) -> tuple[Tensor, TimeBuffer]:
        """Returns the outputs (B, T, H, P) and the next memories, which are a new buffer: old blocks change, too."""
        weight_BTHL = F.softplus(wide(self.levels(x_BTD)).unflatten(-1, self.level_scale.shape) * self.level_scale)
        before = None if memory is None else memory.entries()
        log_decay_BTH = log_decay_BTH1.squeeze(-1)
        y, after = log_linear_attention(q_BTHN, k_BTHN, v_BTHP, log_decay_BTH, weight_BTHL, before, ctx.position)
        return y, TimeBuffer(after, after.shape[1])
