"""The state is carried over a chunk with the decay of the chunk before it: an index that is off by one.

Similar to NVlabs/GatedDeltaNet#15 (a decay missing from the chunkwise form). With one chunk, the index -1 is right.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_decoding"


class LateCell(ChunkedCell):
    def carry(self, S_BHKV: Tensor, summaries: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        states = [S_BHKV]
        for n, (_, added) in enumerate(summaries):
            states.append(states[-1] * summaries[n - 1][0] + added)
        return states


class MODEL(Chunked):
    cell_class = LateCell
