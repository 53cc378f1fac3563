"""`same_until` says that each token changes what is computed for the earlier ones, and it changes nothing.

Ours: decoding then reads the whole text for each token, and a leak from later tokens would count as declared.
"""

from __future__ import annotations

from tests.museum.base import Transformer

CAUGHT_BY = "causality"


class MODEL(Transformer):
    def same_until(self, length: int) -> int | None:
        return max(length, 9)
