"""A language model whose mixer is a moving average: each channel keeps a learned fraction of its memory.

    v_t, g_t = W_in x_t
    h_t      = a h_{t-1} + (1 - a) v_t        a between 0 and 1, one for each channel, learned
    y_t      = W_out (silu(g_t) h_t)

Legend: B batch, T time, D model width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear


class MovingAverage(Layer):
    """A moving average of each channel, shown through a gate."""

    state_growth: ClassVar[str] = "constant"  # the state has the same size after any number of tokens

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.value_and_gate = Linear(d_model, 2 * d_model, bias=False)
        self.own("keep", (d_model,), _between_0_and_5)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns the memory before the first token (B, D)."""
        return like.new_zeros(batch_size, len(self.keep))

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        """Returns the output (B, T, D) and the next state; in training `state` is None, and so is the next one."""
        value_BTD, gate_BTD = self.value_and_gate(x_BTD).chunk(2, dim=-1)
        keep_D = torch.sigmoid(self.keep)
        h_BD = torch.zeros_like(x_BTD[:, 0]) if state is None else state
        memory = []
        for t in range(x_BTD.shape[1]):
            h_BD = keep_D * h_BD + (1 - keep_D) * value_BTD[:, t]
            memory.append(h_BD)
        return self.out(F.silu(gate_BTD) * torch.stack(memory, dim=1)), None if state is None else h_BD


def _between_0_and_5(keep_D: Tensor, generator: torch.Generator | None) -> None:
    """Initializes fractions of 0.5 to 0.993 after the sigmoid: memories of 2 to 150 tokens."""
    nn.init.uniform_(keep_D, 0, 5, generator=generator)


@lmzoo.register_model("moving-average")
class MovingAverageModel(lmzoo.MixerModel):
    """Each channel keeps a learned fraction of its memory."""

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return MovingAverage(config.d_model)
