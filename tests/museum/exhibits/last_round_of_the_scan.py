"""A scan in rounds stops after six, so a token sees no more than the 64 before it.

Similar to triton-lang/triton#2359 (a scan that is right up to 64 entries only).
"""

from __future__ import annotations

from tests.museum.chunked import Doubling, DoublingCell

CAUGHT_BY = "long_decoding"


class SixRoundsCell(DoublingCell):
    def distances(self, T: int) -> list[int]:
        return super().distances(T)[:6]


class MODEL(Doubling):
    cell_class = SixRoundsCell
