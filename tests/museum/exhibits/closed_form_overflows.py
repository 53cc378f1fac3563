"""Keys are divided by the product of all decays up to them, which overflows float32 after some hundred tokens.

Similar to fla-org/flash-linear-attention#463 (exponents of sums of gates without a bound).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_precision"


class DividingCell(ChunkedCell):
    chunk = 4096
    slowness = 1.0

    def read(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, c_BTH: Tensor, S_BHKV: Tensor) -> Tensor:
        q_BTHK, k_BTHK = q_BTHK * c_BTH.exp()[..., None], k_BTHK * (-c_BTH).exp()[..., None]
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK).tril()
        before_BTHV = torch.einsum("bthk,bhkv->bthv", q_BTHK, S_BHKV)
        return torch.einsum("bhts,bshv->bthv", scores_BHTS, v_BTHK) + before_BTHV


class MODEL(Chunked):
    cell_class = DividingCell
