"""Exponents without a shift: fine in float64, infinite in a narrow type.

A near relative of meta-pytorch/attention-gym#464 (0 times infinity in a float16 operand).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State

from ..base import Recurrent

CAUGHT_BY = "bfloat16"


class MODEL(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return (x_BTD + 256.0) - 256.0, state
