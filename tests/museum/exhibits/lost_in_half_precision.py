"""A large number is added and subtracted again, which loses most of the features in bfloat16.

xLLM-AI/xllm#2055 (a sum over the whole prefix in bfloat16: past 1,700 tokens the output was noise).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent

CAUGHT_BY = "bfloat16"


class MODEL(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return (x_BTD + 256.0) - 256.0, state
