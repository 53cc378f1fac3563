"""A second head, which only an auxiliary loss uses, is counted among the parameters that a token uses.

Ours: such a model is matched with others by a number that includes what decoding never reads.
"""

from __future__ import annotations

from tests.museum.sound import predicts_two_ahead

CAUGHT_BY = "parameters"


class MODEL(predicts_two_ahead.MODEL):
    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {}
