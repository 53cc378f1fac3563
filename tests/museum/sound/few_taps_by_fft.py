"""A convolution of six taps by FFT: in float64 its gradient is rounding, and not zero, beyond the taps.

Ours: the receptive field is exact in values, and was judged by gradients that differ from zero at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

TAPS = 6


class TapsCell(Cell):
    """y_t = out(sum_j taps[j] norm(x)_{t - j})."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        del self.gates
        self.taps_WD = torch.nn.Parameter(torch.empty(TAPS, config.d_model))

    def init_state(self, B: int, like: Tensor) -> State:
        return like.new_zeros(B, TAPS - 1, self.taps_WD.shape[1])

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        past_BSD = torch.cat([state, self.norm(x_BTD)], dim=1)
        n = past_BSD.shape[1] + TAPS - 1
        product = torch.fft.rfft(wide(past_BSD), n, dim=1) * torch.fft.rfft(wide(self.taps_WD), n, dim=0)
        y_BSD = torch.fft.irfft(product, n, dim=1)[:, TAPS - 1 : past_BSD.shape[1]]
        return x_BTD + self.out(y_BSD.to(x_BTD.dtype)), past_BSD[:, 1 - TAPS :].clone()


class MODEL(Recurrent):
    cell_class = TapsCell

    @property
    def traits(self) -> Traits:
        reach = self.config.n_layers * (TAPS - 1) + 1
        return Traits(extrapolates=True, state_growth="constant", receptive_field=reach)
