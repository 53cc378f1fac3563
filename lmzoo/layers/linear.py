"""Linear maps, embeddings and tied heads that know how they begin, what role they play and what they cost."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear` whose weight begins as N(0, std²) and whose bias begins at zero."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = True, std: float = 0.02) -> None:
        self.std = std
        super().__init__(d_in, d_out, bias=bias)

    def reset_parameters(self) -> None:
        """What torch's constructor calls to draw the first weights."""
        self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        nn.init.normal_(self.weight, std=self.std, generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` (vocabulary or positions) whose table begins as N(0, std²)."""

    parameter_roles: ClassVar[dict[str, str]] = {"weight": "embedding"}

    def __init__(self, num_embeddings: int, d_model: int, *, std: float = 0.02) -> None:
        self.std = std
        super().__init__(num_embeddings, d_model)

    def reset_parameters(self) -> None:
        """What torch's constructor calls to draw the first weights."""
        self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        nn.init.normal_(self.weight, std=self.std, generator=generator)


class TiedHead(nn.Module):
    """A head whose weight is the token embedding (Press & Wolf 2017, arXiv 1608.05859): it owns no parameter.

    There is one parameter under one name, so nothing that copies, saves or moves a model can untie it.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that it is not registered a second time

    @property
    def weight(self) -> Tensor:
        """(V, D)"""
        return self._embedding[0].weight

    def flops(self, T: int) -> float:
        """FLOPs of one token, in a sequence of T."""
        return 2.0 * self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to logits (..., V)."""
        return F.linear(x, self.weight)


def make_head(embedding: Embedding, *, tied: bool) -> nn.Module:
    """The head over a token embedding: its own weight without a bias, or the embedding's."""
    return TiedHead(embedding) if tied else Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
