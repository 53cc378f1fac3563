"""Queries, keys and decays of the delta rule in tiles of a few chunks: all that does not depend on the memory.

`lmzoo.ops.delta_chunks` has the equations. A tile holds q and, below it, k as a second set of queries: both are
multiplied by the same keys and the same decays. Without decays the factors are ones, and are left out.

Legend: B batch, T time, H heads, K key width, V value width; L = chunks * B * H in a tile, of C positions each; 2 sets
of queries, Q = 2 C.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lmzoo.ops.chunks import in_chunks, tiles
from lmzoo.ops.decayed_scores import DecayProducts


class Tile(NamedTuple):
    """Queries and keys with their decays, of several chunks: they do not depend on the memory."""

    q_LQK: Tensor  # q and then k
    near_q_LQK: Tensor  # times the decays since the chunk's start
    near_k_LCK: Tensor  # times beta and the decays to the chunk's end
    beta_LC1: Tensor
    between_LCC: Tensor  # the decays between two positions, zero above the diagonal
    since_LC1: Tensor | None
    until_LC1: Tensor | None
    kept_L11: Tensor  # the product of the chunk's decays

    @property
    def k_LCK(self) -> Tensor:
        return self.q_LQK.chunk(2, dim=1)[1]

    def scores(self, q_LQK: Tensor) -> Tensor:
        """Returns the scores of one or both sets of queries with the keys of their chunk, (L, C or Q, C)."""
        scores_LQC = torch.bmm(q_LQK, self.k_LCK.mT)
        return times(scores_LQC, self.between_LCC).mul_(self.beta_LC1.mT)


class Chunks:
    """The inputs of the operator, cut into chunks and tiles."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, C: int) -> None:
        (B, T, H, K), V = q.shape, v.shape[-1]
        self.q, self.k, self.v, self.beta = (in_chunks(x, C) for x in (q, k, v, beta))
        self.log_decay = None if log_decay is None else in_chunks(log_decay, C)
        self.products = DecayProducts(C, q)
        self.tiles = tiles(T // C, B * H * C * max(K, V))

    def tile(self, n: slice) -> Tile:
        """Computes the chunks n."""
        q_LQK = torch.stack((self.q[n], self.k[n]), dim=3).flatten(3, 4).flatten(0, 2)
        beta_LC1 = self.beta[n].flatten(0, 2)[..., None]
        k_LCK = q_LQK.chunk(2, dim=1)[1]
        if self.log_decay is None:
            between_CC, kept_L11 = self.products.visible_CC, torch.ones_like(beta_LC1[:, :1])
            return Tile(q_LQK, q_LQK, k_LCK * beta_LC1, beta_LC1, between_CC, None, None, kept_L11)
        between_LCC, since_LC1, until_LC1 = self.products(self.log_decay[n].flatten(0, 2))
        near_q_LQK = (q_LQK.unflatten(1, (2, -1)) * since_LC1[:, None]).flatten(1, 2)
        near_k_LCK = k_LCK * (beta_LC1 * until_LC1)
        kept_L11 = since_LC1[:, -1:]
        return Tile(q_LQK, near_q_LQK, near_k_LCK, beta_LC1, between_LCC, since_LC1, until_LC1, kept_L11)


def times(x_LQX: Tensor, factor_LCX: Tensor) -> Tensor:
    """Multiplies each set of queries by the same factors, in place."""
    L, Q, X = x_LQX.shape
    C = factor_LCX.shape[-2]
    x_LQX.view(L, Q // C, C, X).mul_(factor_LCX.unsqueeze(-3))
    return x_LQX
