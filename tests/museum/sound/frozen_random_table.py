"""A table of random features per token is a parameter that is drawn once and frozen, declared as a constant.

Ours: random features, which as a parameter are saved, cast and moved like any other weight.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, Recurrent


class RandomTable(nn.Module):
    """Random signs per token, mapped to the width of the model by a trained matrix."""

    parameter_roles: ClassVar[dict[str, str]] = {"signs_VD": "constant"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.signs_VD = nn.Parameter(torch.empty(config.vocab_size, config.d_model), requires_grad=False)
        self.mix = Linear(config.d_model, config.d_model)
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.uniform_(self.signs_VD, -1, 1, generator=generator)
        with torch.no_grad():
            self.signs_VD.sign_()

    def forward(self, idx_BT: Tensor) -> Tensor:
        return self.mix(F.embedding(idx_BT, self.signs_VD))


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tokens = RandomTable(config)
