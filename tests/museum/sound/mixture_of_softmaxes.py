"""The head returns the logarithm of a mixture of several softmaxes, so logits are no linear map of the features.

Yang et al. 2017 (arXiv 1711.03953).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, Recurrent


class MixtureHead(nn.Module):
    def __init__(self, d_model: int, vocab_size: int, n_mixed: int) -> None:
        super().__init__()
        self.n_mixed = n_mixed
        self.weights = Linear(d_model, n_mixed)
        self.logits = Linear(d_model, n_mixed * vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.logits(x).unflatten(-1, (self.n_mixed, -1))
        mixed = self.weights(x).log_softmax(-1)[..., None] + logits.log_softmax(-1)
        return torch.logsumexp(mixed, dim=-2)


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.head = MixtureHead(config.d_model, config.vocab_size, 3)
