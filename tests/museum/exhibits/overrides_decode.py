"""A model overrides `decode`, so nothing that the contract promises about the state is certain.

As in tinygrad/tinygrad#2637 (a `step` beside a `forward`, and they differ).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "finals"


class MODEL(Transformer):
    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        return super().decode(idx, state)
