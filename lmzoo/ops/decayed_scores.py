"""Scores of queries with decayed keys within chunks of a sequence, for one decay for all channels.

For the positions c and s <= c of a chunk, with the decay a[c] at c,

    scores[c, s] = (q[c] . k[s]) a[s + 1] ... a[c]
    since[c]     = a[0] ... a[c]                 until[s] = a[s + 1] ... a[C - 1]

All products of decays form a matrix (C, C), so one matrix product computes the scores. Their logarithms are computed by
one product with a matrix of zeros and ones. Each is a sum of its own: no decay is divided by another one, and no
difference of logarithms is taken, because both would be inexact or infinite for strong decays. A decay of zero, whose
logarithm is minus infinity, is exact.

`naive_decayed_scores` is the definition. With a decay for each channel, see `lmzoo.ops.decayed_memory`.

Legend: N chunks, M = B * H rows and heads, C positions of a chunk, K channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_LOG = -1000.0  # its exponential is zero, and unlike that of infinity its product with zero is zero

Scores = tuple[Tensor, Tensor, Tensor]


def naive_decayed_scores(q_NMCK: Tensor, k_NMCK: Tensor, log_decay_NMC1: Tensor) -> Scores:
    """The definition, one pair of positions after another; arguments and results as in `decayed_scores`."""
    C, a_NMC = q_NMCK.shape[-2], log_decay_NMC1.exp().squeeze(-1)
    rows = []
    for c in range(C):
        products = ((q_NMCK[..., c, :] * k_NMCK[..., s, :]).sum(-1) for s in range(C))
        row = [x * a_NMC[..., s + 1 : c + 1].prod(-1) if s <= c else 0.0 * x for s, x in enumerate(products)]
        rows.append(torch.stack(row, dim=-1))
    since = [a_NMC[..., : c + 1].prod(-1, keepdim=True) for c in range(C)]
    until = [a_NMC[..., s + 1 :].prod(-1, keepdim=True) for s in range(C)]
    return torch.stack(rows, dim=-2), torch.stack(since, dim=-2), torch.stack(until, dim=-2)


class DecayProducts:
    """Computes the products of decays within chunks of C positions."""

    def __init__(self, C: int, like: Tensor) -> None:
        t, s, j = torch.meshgrid(*[torch.arange(C, device=like.device)] * 3, indexing="ij")
        self.visible_CC = (s[..., 0] <= t[..., 0]).to(like.dtype)
        self.between_CX = ((s < j) & (j <= t)).to(like.dtype).flatten(0, 1).T  # X = C * C pairs of positions

    def __call__(self, log_decay_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the decays between positions (N, C, C), zero above the diagonal, `since` and `until` (N, C, 1).

        N may be several axes.
        """
        log_decay_NC = log_decay_NC.clamp(min=LEAST_LOG)
        between_NCC = (log_decay_NC @ self.between_CX).unflatten(-1, self.visible_CC.shape).exp() * self.visible_CC
        since_NC = (log_decay_NC @ self.visible_CC.T).exp()
        return between_NCC, since_NC[..., None], between_NCC[..., -1, :, None]


def decayed_scores(q_NMCK: Tensor, k_NMCK: Tensor, log_decay_NMC1: Tensor) -> Scores:
    """Returns the scores of all queries with all keys of their chunk (N, M, C, C), `since` and `until` (N, M, C, 1).

    The logarithms of the decays are from minus infinity to 0. Several sets of queries may be stacked in front,
    (G, N, M, C, K), and give scores (G, N, M, C, C).
    """
    products = DecayProducts(k_NMCK.shape[-2], k_NMCK)
    between_NMCC, since_NMC1, until_NMC1 = products(log_decay_NMC1.squeeze(-1))
    return (q_NMCK @ k_NMCK.mT) * between_NMCC, since_NMC1, until_NMC1
