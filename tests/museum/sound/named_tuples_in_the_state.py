"""The state is made of named tuples inside named tuples, with tensors, None and text among the leaves.

Ours: everything that the contract allows in a state.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent


class Tail(NamedTuple):
    inputs: Tensor
    padding: str


class Memory(NamedTuple):
    h: Tensor
    tail: Tail
    unused: None


class NamedCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        plain = super().init_state(B, like)
        return Memory(plain["h"], Tail(plain["tail"], "zeros"), None)

    def forward(self, x_BTD: Tensor, state: Memory) -> tuple[Tensor, State]:
        y_BTD, plain = super().forward(x_BTD, {"h": state.h, "tail": state.tail.inputs})
        return y_BTD, Memory(plain["h"], Tail(plain["tail"], state.tail.padding), state.unused)


class MODEL(Recurrent):
    cell_class = NamedCell
