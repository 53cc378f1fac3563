"""Heads: maps from features to logits. Legend: D model width, V vocabulary."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import Init, normal
from lmzoo.layers.linear import Embedding, Linear


class TiedHead(nn.Module):
    """A head whose weight is the token embedding (Press & Wolf 2017, arXiv 1608.05859); it owns no parameter.

    There is one parameter under one name, so nothing that copies, saves or moves a model can untie it.
    """

    is_linear = True  # the logits are F.linear(x, self.weight) and nothing else

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that it is not registered a second time

    @property
    def weight(self) -> Tensor:
        """Returns the token embedding (V, D)."""
        return self._embedding[0].weight

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token."""
        return 2.0 * self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (..., D) to logits (..., V)."""
        return F.linear(x, self.weight)


def make_head(embedding: Embedding, *, tied: bool, init: Init = normal()) -> nn.Module:
    """Returns a head: tied to the weight of the token embedding, or a separate linear map without a bias."""
    if tied:
        return TiedHead(embedding)
    return Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, init=init)
