"""A table with a row for each hash of two tokens has the role of a matrix, and is read by an embedding lookup.

Ours: Muon would make the rows of unrelated hashes orthogonal to each other.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "roles"


class MODEL(Recurrent):
    parameter_roles: ClassVar[dict[str, str]] = {"table_RD": "matrix"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.table_RD = nn.Parameter(torch.randn(17, config.d_model) * 0.1)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD + F.embedding(idx_BT * 5 % 17, self.table_RD), state
