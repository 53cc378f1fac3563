"""The state is detached between chunks, so no gradient reaches further back than the chunk.

Similar to NX-AI/mlstm_kernels#10 (gradients between chunks that are wrong for some lengths).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_gradients"


class DetachingCell(ChunkedCell):
    def carry(self, S_BHKV: Tensor, summaries: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [S.detach() for S in super().carry(S_BHKV, summaries)]


class MODEL(Chunked):
    cell_class = DetachingCell
