"""Drafts for speculative decoding: cheap guesses at what a model will say. A `LanguageModel` is one as it is.

Counted n-grams and a look into the text so far are made to look like models here: a state, and logits from it. What
they guess decides the speed alone, never the result. Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.state import State, TimeBuffer

IMPOSSIBLE = -1e4  # exp() of it is 0; finite, so that something is left when the settings ban the guess


class Draft(Protocol):
    """What is needed of a draft: the part of a `LanguageModel` that decodes. States are values here too."""

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """The state before the first token."""

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """idx (B, T) to the last position's logits (B, V) and the next state."""


class NextProbabilities(Protocol):
    """What is needed of counted n-grams; `lmzoo.compare.ngram.NGram` has it."""

    vocab_size: int
    order: int

    def next_probabilities(self, context: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        """The distribution (V,) of the token after `context`."""


class NGramDraft:
    """Counted n-grams as a draft; the state is the last `order - 1` tokens."""

    def __init__(self, ngram: NextProbabilities) -> None:
        self.ngram = ngram

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Nothing read yet."""
        return torch.zeros(batch_size, 0, dtype=torch.long)

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """idx (B, T) -> log-probabilities (B, V) of what follows, and the next state."""
        tokens_BT = torch.cat([state, idx.cpu()], dim=1)
        context_BT = tokens_BT[:, max(0, tokens_BT.shape[1] - self.ngram.order + 1) :]
        rows = [tuple(row) for row in context_BT.tolist()]
        known = {row: self.ngram.next_probabilities(np.array(row, dtype=np.int64)) for row in set(rows)}
        probs_BV = torch.from_numpy(np.array([known[row] for row in rows]).reshape(len(rows), self.ngram.vocab_size))
        return probs_BV.log().to(idx.device), context_BT


class PromptLookup:
    """What followed the last time that the text's end was seen before: for answers that quote their prompt.

    Looks for the longest end of the text so far, of `max_ngram` tokens at most, that occurs earlier, and guesses the
    token after its latest occurrence; the last token again where nothing does (Saxena 2023, "Prompt Lookup Decoding").
    """

    def __init__(self, vocab_size: int, max_ngram: int = 3) -> None:
        if max_ngram < 1:
            raise InputError(f"max_ngram={max_ngram} must be a positive integer")
        self.vocab_size, self.max_ngram = vocab_size, max_ngram

    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Nothing read yet."""
        return TimeBuffer.empty(batch_size, max_len or 256, dtype=torch.long)

    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """idx (B, T) -> logits (B, V), 0 for the guess and very low for all others, and the next state."""
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
