"""From the third layer on, every layer reads the cache of the second.

Similar to NVIDIA/TensorRT-LLM#16801 (layers that look up the cache of another layer).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "long_decoding"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is not None:
            caches: list[Any] = [state["caches"][min(i, 1)] for i in range(len(state["caches"]))]
            state = {**state, "caches": caches}
        return super().features(idx_BT, state)
