"""Sinkhorn iterations: make a positive matrix doubly stochastic (Sinkhorn & Knopp 1967).

    M = exp(logits); repeat: divide each row by its sum, then each column by its sum

After enough iterations all rows and columns sum to one; after the last one the columns do exactly. The product of two
such matrices is one, so mixing with them over many layers neither grows nor shrinks a mean. `naive_sinkhorn` is the
definition; `log_sinkhorn` subtracts logarithms, which neither overflow nor leave an empty column.

Shapes: ... any, N rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def naive_sinkhorn(logits_NN: Tensor, iterations: int) -> Tensor:
    """The definition; arguments and result as in `sinkhorn`."""
    m_NN = logits_NN.exp()
    for _ in range(iterations):
        m_NN = m_NN / m_NN.sum(dim=-1, keepdim=True)
        m_NN = m_NN / m_NN.sum(dim=-2, keepdim=True)
    return m_NN


def log_sinkhorn(logits_NN: Tensor, iterations: int) -> Tensor:
    """The stable form; arguments and result as in `sinkhorn`."""
    for _ in range(iterations):
        logits_NN = logits_NN - torch.logsumexp(logits_NN, dim=-1, keepdim=True)
        logits_NN = logits_NN - torch.logsumexp(logits_NN, dim=-2, keepdim=True)
    return logits_NN.exp()


def sinkhorn(logits_NN: Tensor, iterations: int) -> Tensor:
    """Returns the matrices (..., N, N) after so many Sinkhorn iterations on exp(logits)."""
    return log_sinkhorn(logits_NN, iterations)
