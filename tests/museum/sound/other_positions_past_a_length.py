"""Texts of more than nine tokens have positions half as far apart, whatever their length.

As in LongRoPE (Ding et al. 2024, arXiv 2402.13753): decoding reads all tokens again once, at the tenth.
"""

from __future__ import annotations

from tests.museum.sound import positions_squeezed_into_a_length
from tests.museum.sound.positions_squeezed_into_a_length import FEW


class MODEL(positions_squeezed_into_a_length.MODEL):
    def same_until(self, length: int) -> int | None:
        return FEW if length <= FEW else None

    def share(self, length: int) -> float:
        return 1.0 if length <= FEW else 0.5
