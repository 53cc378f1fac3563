"""A convolution over the whole past by FFT; its filter is computed once for all rows.

S4 (Gu et al. 2021, arXiv 2111.00396) and Hyena (Poli et al. 2023, arXiv 2302.10866).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import Traits
from lmzoo.ops.precision import wide
from lmzoo.state import State, TimeBuffer
from tests.museum.base import CellConfig, Recurrent


class ConvolutionCell(Layer):
    """y_t = sum_s filter[t - s] u_s, where filter[n] = sum_j weight[j] exp(-n rate[j]) in each channel."""

    keep_float32 = ("log_rate_DJ", "weight_DJ")
    log_rate_DJ: Tensor
    weight_DJ: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.own("log_rate_DJ", (config.d_model, 3), uniform(2.0), "vector")
        self.own("weight_DJ", (config.d_model, 3), uniform(1.0), "vector")
        self.into = Linear(config.d_model, 2 * config.d_model, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_cache(self, B: int, max_len: int, like: Tensor) -> TimeBuffer:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return TimeBuffer.empty(B, max_len, len(self.weight_DJ), device=like.device, dtype=dtype)

    def convolve(self, u_BSD: Tensor) -> Tensor:
        S = u_BSD.shape[1]
        if u_BSD.numel() == 0:
            return u_BSD  # the FFT of no rows raises an error
        n_S = torch.arange(S, device=u_BSD.device, dtype=u_BSD.dtype)
        powers_DJS = torch.exp(-wide(self.log_rate_DJ).exp()[..., None] * n_S)
        filter_DS = (wide(self.weight_DJ)[..., None] * powers_DJS).sum(1)
        product = torch.fft.rfft(u_BSD.mT, 2 * S) * torch.fft.rfft(filter_DS, 2 * S)
        return torch.fft.irfft(product, 2 * S)[..., :S].mT

    def forward(self, x_BTD: Tensor, past: TimeBuffer | None) -> tuple[Tensor, TimeBuffer | None]:
        gate_BTD, u_BTD = self.into(self.norm(x_BTD)).chunk(2, dim=-1)
        u_BTD = wide(u_BTD)
        after = None if past is None else past.append(u_BTD)
        u_BSD = u_BTD if after is None else after.entries()
        y_BTD = self.convolve(u_BSD)[:, u_BSD.shape[1] - x_BTD.shape[1] :]
        return x_BTD + self.out(torch.tanh(gate_BTD) * y_BTD.to(x_BTD.dtype)), after


class MODEL(Recurrent):
    cell_class = ConvolutionCell

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="linear")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        cells: Iterable[Any] = self.cells
        return [cell.init_cache(batch_size, max_len, like) for cell in cells]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        for i, cell in enumerate(self.cells):
            x_BTD, piece = cell(x_BTD, None if state is None else state[i])
            after.append(piece)
        return self.norm(x_BTD), None if state is None else after
