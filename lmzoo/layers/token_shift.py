"""Token shift (RWKV: Peng et al. 2023, arXiv 2305.13048): mixtures of each token with the one before it.

Legend: B batch, T time, D model width, N mixtures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import Init
from lmzoo.layers.layer import Layer


class TokenShift(Layer):
    """`x_t + mix (x_{t-1} - x_t)` for each of N weights `mix`: (B, T, D) to (N, B, T, D).

    Its state is the last token. `init` fills the weights (N, D); `n` is N.
    """

    reach = 2
    state_growth = "constant"
    mix: Tensor  # (N, D)

    def __init__(self, d_model: int, n: int, init: Init) -> None:
        super().__init__()
        self.own("mix", (n, d_model), init, "vector")

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, D): the token before the first one."""
        return like.new_zeros(batch_size, self.mix.shape[1])

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        before_BD = torch.zeros_like(x_BTD[:, 0]) if state is None else state.to(x_BTD.dtype)
        difference_BTD = torch.cat([before_BD[:, None], x_BTD[:, :-1]], dim=1) - x_BTD
        mixed_NBTD = x_BTD + difference_BTD * self.mix[:, None, None]
        return mixed_NBTD, None if state is None else x_BTD[:, -1].to(state.dtype, copy=True)
