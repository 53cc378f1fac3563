"""A part of the state is kept on the module, under the address of a tensor: a saved state has lost that part.

Similar to vllm-project/vllm#53084 (a state stored without its contents, and read back as if it were whole).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "state_saved"


class AddressedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tails: dict[int, Tensor] = {}

    def init_state(self, B: int, like: Tensor) -> State:
        return {"h": super().init_state(B, like)["h"]}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        h_BD = state["h"]
        tail = self.tails.get(id(h_BD), torch.zeros(h_BD.shape[0], 2, h_BD.shape[1], dtype=h_BD.dtype))
        y_BTD, after = super().forward(x_BTD, {"tail": tail.to(h_BD.dtype), "h": h_BD})
        self.tails[id(after["h"])] = after["tail"].detach()
        self.kept = [
            *getattr(self, "kept", ()),
            after["h"],
        ]  # keeps the tensor alive, so that its address is not reused
        return y_BTD, {"h": after["h"]}


class MODEL(Recurrent):
    cell_class = AddressedCell
