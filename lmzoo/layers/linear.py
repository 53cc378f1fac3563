"""Linear maps and embeddings with their initial values and parameter roles."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from lmzoo import arguments
from lmzoo.layers.init import Init, constant, is_deferred, normal


class Linear(nn.Linear):
    """`nn.Linear` with given initial values; by default the weight is drawn from N(0, 0.02²) and the bias is 0."""

    def __init__(
        self, d_in: int, d_out: int, *, bias: bool = True, init: Init = normal(), bias_init: Init = constant(0.0)
    ) -> None:
        for name, size in (("d_in", d_in), ("d_out", d_out)):
            arguments.count(f"{type(self).__name__}: {name}", size)
        self.init, self.bias_init = init, bias_init
        super().__init__(d_in, d_out, bias=bias)

    def reset_parameters(self) -> None:
        """Draws the initial weights; called by torch's constructor."""
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the parameters to new initial values, from `generator` or torch's global random state."""
        with torch.no_grad():
            self.init(self.weight, generator)
            if self.bias is not None:
                self.bias_init(self.bias, generator)


class Embedding(nn.Embedding):
    """`nn.Embedding` (of tokens or positions) with given initial values, by default from N(0, 0.02²)."""

    parameter_roles: ClassVar[dict[str, str]] = {"weight": "embedding"}

    def __init__(self, num_embeddings: int, d_model: int, *, init: Init = normal()) -> None:
        for name, size in (("num_embeddings", num_embeddings), ("d_model", d_model)):
            arguments.count(f"{type(self).__name__}: {name}", size)
        self.init = init
        super().__init__(num_embeddings, d_model)

    def reset_parameters(self) -> None:
        """Draws the initial weights; called by torch's constructor."""
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the parameters to new initial values, from `generator` or torch's global random state."""
        with torch.no_grad():
            self.init(self.weight, generator)
