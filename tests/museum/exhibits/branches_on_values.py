"""A branch depends on a tensor's value, so torch.compile cannot capture one graph.

isayevlab/aimnetcentral#109 (41 graph breaks, and slower than eager), PrimeIntellect-ai/prime-rl#996.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "compiles"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return (x_BTD.clamp(-9, 9) if x_BTD.abs().max().item() > 9 else x_BTD), state
