"""An FFT of 256 points is used for any length up to 256, though a convolution of T tokens needs 2 T: later tokens leak.

HazyResearch/safari#4, HazyResearch/flash-fft-conv#31 (a convolution that is circular when the FFT is too short).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.precision import wide
from tests.museum.sound.fft_convolution import MODEL as Convolution
from tests.museum.sound.fft_convolution import ConvolutionCell

CAUGHT_BY = "long_causality"


class CircularCell(ConvolutionCell):
    def convolve(self, u_BSD: Tensor) -> Tensor:
        S = u_BSD.shape[1]
        if u_BSD.numel() == 0:
            return u_BSD
        n_S = torch.arange(S, device=u_BSD.device, dtype=u_BSD.dtype)
        powers_DJS = torch.exp(-wide(self.log_rate_DJ).exp()[..., None] * n_S)
        filter_DS = (wide(self.weight_DJ)[..., None] * powers_DJS).sum(1)
        n = max(256, S)
        product = torch.fft.rfft(u_BSD.mT, n) * torch.fft.rfft(filter_DS, n)
        return torch.fft.irfft(product, n)[..., :S].mT


class MODEL(Convolution):
    cell_class = CircularCell
