"""Only whole chunks of 64 are computed once there is one: the tokens after the last whole chunk get zeros.

fla-org/flash-linear-attention#906 (a tail chunk that is skipped beyond a length).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_decoding"


class WholeCell(ChunkedCell):
    def mix(
        self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, g_BTH: Tensor, S_BHKV: Tensor
    ) -> tuple[Tensor, Tensor]:
        T = q_BTHK.shape[1]
        n = T // self.chunk * self.chunk or T
        y_BTHK, _ = super().mix(q_BTHK[:, :n], k_BTHK[:, :n], v_BTHK[:, :n], g_BTH[:, :n], S_BHKV)
        _, S_BHKV = super().mix(q_BTHK, k_BTHK, v_BTHK, g_BTH, S_BHKV)
        return F.pad(y_BTHK, (0, 0, 0, 0, 0, T - n)), S_BHKV


class MODEL(Chunked):
    cell_class = WholeCell
