"""The constructor makes the projections back to the residual stream smaller, and `init_weights` draws them again.

Ours: as in code that initializes a model in its constructor, where nothing draws the weights afterwards.
"""

from __future__ import annotations

import torch

from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "initialization"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("attention.out.weight"):
                    parameter.mul_((2 * config.n_layers) ** -0.5)
