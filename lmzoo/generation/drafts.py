"""Drafts for speculative decoding: cheap predictors of a model's next tokens. Any `LanguageModel` is a draft.

Counted n-grams and prompt lookup have the decoding interface of a model: a state, and logits from it. Drafts change
only the speed, never the distribution of the result. Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.state import State, TimeBuffer

if TYPE_CHECKING:
    from lmzoo.compare.ngram import NGram

IMPOSSIBLE = -1e4  # exp(_LOW) is 0; finite, so that other tokens remain when the sampling settings ban the draft token


class Draft(Protocol):
    """The part of a `LanguageModel` that a draft needs: decoding. States are values, as in a model."""

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Returns the state before the first token."""

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the logits (B, V) of the last position of idx (B, T), and the next state."""


class NGramDraft:
    """Draft from counted n-grams; the state is the last `order - 1` tokens."""

    def __init__(self, ngram: NGram) -> None:
        self.ngram = ngram

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Returns the state before the first token."""
        return torch.zeros(batch_size, 0, dtype=torch.long)

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the log-probabilities (B, V) of the token after idx (B, T), and the next state."""
        tokens_BT = torch.cat([state, idx.cpu()], dim=1)
        context_BT = tokens_BT[:, max(0, tokens_BT.shape[1] - self.ngram.order + 1) :]
        rows = [tuple(row) for row in context_BT.tolist()]
        known = {row: self.ngram.next_probabilities(np.array(row, dtype=np.int64)) for row in set(rows)}
        probs_BV = torch.from_numpy(np.array([known[row] for row in rows]).reshape(len(rows), self.ngram.vocab_size))
        return probs_BV.log().to(idx.device), context_BT


class PromptLookup:
    """Draft that copies from the tokens so far, for answers that quote their prompt.

    Finds the longest suffix of the tokens, of at most `max_ngram` tokens, that occurs earlier, and drafts the token
    after its latest occurrence; repeats the last token when there is none (Saxena 2023, "Prompt Lookup Decoding").
    """

    def __init__(self, vocab_size: int, max_ngram: int = 3) -> None:
        if max_ngram < 1:
            raise InputError(f"max_ngram={max_ngram} must be a positive integer")
        self.vocab_size, self.max_ngram = vocab_size, max_ngram

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Returns the state before the first token."""
        return TimeBuffer.empty(batch_size, max_len or 256, dtype=torch.long)

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns logits (B, V), 0 for the draft token and very low for all others, and the next state."""
        state = state.append(idx.cpu())
        guess_B1 = torch.tensor([[self._guess(row)] for row in state.entries().tolist()], dtype=torch.long)
        logits_BV = torch.full((len(idx), self.vocab_size), IMPOSSIBLE)
        return logits_BV.scatter_(1, guess_B1.view(-1, 1), 0.0).to(idx.device), state

    def _guess(self, tokens: Sequence[int]) -> int:
        for size in range(min(self.max_ngram, len(tokens) - 1), 0, -1):
            end = tokens[-size:]
            for start in range(len(tokens) - size - 1, -1, -1):
                if tokens[start : start + size] == end:
                    return tokens[start + size]
        return tokens[-1]
