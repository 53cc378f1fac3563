"""The positions of all tokens change with each further token past nine, and no `same_until` says so.

Ours: dynamic NTK scaling in a decoder of one's own, where cached keys keep the angles of a shorter text.
"""

from __future__ import annotations

from tests.museum.sound import positions_squeezed_into_a_length

CAUGHT_BY = "causality"


class MODEL(positions_squeezed_into_a_length.MODEL):
    def same_until(self, length: int) -> int | None:
        return None
