"""The positions of all tokens change from the tenth on; `same_until` says that nothing changes up to the eighteenth.

Ours: the limit is that of another setting, such as the context length instead of the length of the training.
"""

from __future__ import annotations

from tests.museum.sound import positions_squeezed_into_a_length
from tests.museum.sound.positions_squeezed_into_a_length import FEW

CAUGHT_BY = "decoding"


class MODEL(positions_squeezed_into_a_length.MODEL):
    def same_until(self, length: int) -> int | None:
        return max(length, 2 * FEW)
