"""The sum of log-decays in a chunk is clamped, so two tokens far into a long chunk see each other without a decay.

sgl-project/sglang#39971 (a clamp of exponents that is never reached in short chunks).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_decoding"


class ClampingCell(ChunkedCell):
    chunk = 256

    def summed(self, g_BTH: Tensor) -> Tensor:
        return super().summed(g_BTH).clamp(min=-5)


class MODEL(Chunked):
    cell_class = ClampingCell
