"""A head that answers from a table of counted n-grams.

Legend: D contexts of 0 to D - 1 tokens that end at one position, N rows of the table, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.layer import Layer
from lmzoo.ops import ngram


class NGramHead(Layer):
    """The log-probabilities (..., V), in float32, after contexts (..., D), which are rows of its table of n-grams.

    The table is empty at first, so all tokens have the same probability. It has no parameters: `fit` fills it. Its
    size is fixed; unused rows lie at its end. The numbers are integers, which no cast rounds.
    """

    reach = 1

    def __init__(self, vocab_size: int, order: int, capacity: int) -> None:
        super().__init__()
        self.vocab_size, self.order, self.capacity = vocab_size, order, capacity
        self.keys_N: Tensor
        self.before_N1: Tensor
        self.register_buffer("keys_N", torch.full((capacity,), ngram.EMPTY))
        self.register_buffer("before_N1", torch.zeros(capacity + 1, dtype=torch.int64))

    @property
    def counts(self) -> ngram.Counts:
        """The table: see `lmzoo.ops.ngram`."""
        return ngram.Counts(self.keys_N, self.before_N1)

    def flops(self, T: int) -> float:
        """Returns 0: rows are looked up, and what they hold is added elementwise."""
        return 0.0

    def fit(self, tokens_BT: Tensor) -> None:
        """Counts the n-grams in rows of ids, padded by negative ones, and forgets what was counted before."""
        counts = ngram.count(tokens_BT, self.vocab_size, self.order, self.capacity)
        self.keys_N.copy_(counts.keys_N)
        self.before_N1.copy_(counts.before_N1)

    def start(self, batch_size: int) -> Tensor:
        """Returns the contexts (B, D) before the first token."""
        return ngram.start(batch_size, self.order, self.keys_N.device)

    def read(self, idx_BT: Tensor, before_BD: Tensor) -> Tensor:
        """Returns the contexts (B, T, D) that end at each token, given those before the first one."""
        return ngram.read(self.counts, self.vocab_size, idx_BT, before_BD)

    def forward(self, x: Tensor) -> Tensor:
        return ngram.probabilities(self.counts, self.vocab_size, x).log().float()
