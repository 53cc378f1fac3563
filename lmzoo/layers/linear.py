"""Linear maps and embeddings with their initial values and parameter roles."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from lmzoo.layers.init import Init, constant, is_deferred, normal


class Linear(nn.Linear):
    """`nn.Linear` with named initial values: the weight's are N(0, 0.02²) by default, the bias's 0."""

    def __init__(
        self, d_in: int, d_out: int, *, bias: bool = True, init: Init = normal(), bias_init: Init = constant(0.0)
    ) -> None:
        self.init, self.bias_init = init, bias_init
        super().__init__(d_in, d_out, bias=bias)

    def reset_parameters(self) -> None:
        """Called by torch's constructor to draw the first weights."""
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the parameters anew, from `generator` or from torch's global random state."""
        with torch.no_grad():
            self.init(self.weight, generator)
            if self.bias is not None:
                self.bias_init(self.bias, generator)


class Embedding(nn.Embedding):
    """`nn.Embedding` (of tokens or positions) with named initial values, N(0, 0.02²) by default."""

    parameter_roles: ClassVar[dict[str, str]] = {"weight": "embedding"}

    def __init__(self, num_embeddings: int, d_model: int, *, init: Init = normal()) -> None:
        self.init = init
        super().__init__(num_embeddings, d_model)

    def reset_parameters(self) -> None:
        """Called by torch's constructor to draw the first weights."""
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the parameters anew, from `generator` or from torch's global random state."""
        with torch.no_grad():
            self.init(self.weight, generator)
