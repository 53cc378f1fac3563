"""Classes of the tokens that a model predicts: what it copies from its context, and what is frequent in training.

They depend on the text and on how it is cut into windows, not on a model, so they are computed once for all models.
Legend: K classes, N targets of a split in the order of `split_windows`, V vocabulary, B windows, T targets of a window,
S = T + 1 tokens of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lmzoo.data.documents import split_windows
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import Tokenizer

Bools = NDArray[np.bool_]

FREQUENT = 0.5  # of the training tokens: the share of the most frequent tokens
RARE = 0.1  # of the training tokens: the share of the least frequent ones
MEANINGS = {
    "repeated bigram": "completes a bigram that occurred earlier in its window",
    "repeated trigram": "completes a trigram that occurred earlier in its window",
    "not repeated": "completes a bigram that did not occur earlier in its window",
    "frequent": f"is one of the most frequent tokens, which make up {100 * FREQUENT:g} % of the training split",
    "rare": f"is none of the tokens that make up the most frequent {100 * (1 - RARE):g} % of the training split",
    "whitespace": "consists of whitespace",
}
_WINDOWS_AT_A_TIME = 64


class TokenClasses:
    """Tells of every target of `split` which classes it belongs to; a target may belong to several or none."""

    def __init__(self, split: TokenSplit, train: NDArray[np.integer], tokenizer: Tokenizer) -> None:
        """`train` holds the training tokens, which decide what is frequent or rare."""
        self._split = split
        self._kinds = vocabulary_kinds(train, tokenizer)
        self._found: dict[tuple[int, int], Bools] = {}

    def members(self, context_length: int, stride: int) -> Bools:
        """Return (K, N): for each class in the order of `MEANINGS`, whether a target belongs to it. Cached."""
        key = (context_length, stride)
        if key not in self._found:
            self._found[key] = self._classify(context_length, stride)
        return self._found[key]

    def _classify(self, context_length: int, stride: int) -> Bools:
        members: list[Bools] = []
        windows = split_windows(self._split, _WINDOWS_AT_A_TIME, context_length, stride=stride)
        for idx_BT, targets_BT, counted_BT in windows:
            tokens_BS = torch.cat([idx_BT[:, :1], targets_BT], dim=1).numpy()
            pairs_BT, triples_BT = (repeated(tokens_BS, order)[:, 1:] for order in (2, 3))
            counted = counted_BT.numpy()
            kinds = [kind_V[targets_BT[counted_BT].numpy()] for kind_V in self._kinds]
            members.append(np.stack([*(kind_BT[counted] for kind_BT in (pairs_BT, triples_BT, ~pairs_BT)), *kinds]))
        return np.concatenate(members, axis=1)


def repeated(tokens_BS: NDArray[np.int64], order: int) -> Bools:
    """Return (B, S): whether the n-gram of `order` tokens that ends at a token occurred earlier in its row."""
    S = tokens_BS.shape[1]
    found_BS = np.zeros(tokens_BS.shape, bool)
    if order > S:
        return found_BS
    base = int(tokens_BS.max()) + 2  # of numbers whose digits are the tokens plus one; IGNORE_INDEX follows real tokens
    key_BS = np.zeros((len(tokens_BS), S - order + 1), np.int64)
    for n in range(order):
        key_BS = key_BS * base + tokens_BS[:, n : n + S - order + 1] + 1
    place_BS = np.argsort(key_BS, axis=1, kind="stable")  # of equal n-grams, the earlier one comes first
    sorted_BS = np.take_along_axis(key_BS, place_BS, axis=1)
    same_BS = np.zeros(key_BS.shape, bool)
    same_BS[:, 1:] = sorted_BS[:, 1:] == sorted_BS[:, :-1]
    np.put_along_axis(found_BS[:, order - 1 :], place_BS, same_BS, axis=1)
    return found_BS


def vocabulary_kinds(train: NDArray[np.integer], tokenizer: Tokenizer) -> tuple[Bools, Bools, Bools]:
    """Return for each token of the vocabulary, (V,), whether it is frequent, rare, and whitespace."""
    count_V = np.bincount(train, minlength=tokenizer.vocab_size)
    order_V = np.argsort(-count_V, kind="stable")
    before_V = np.empty(len(count_V), np.int64)  # training tokens that are more frequent ones
    before_V[order_V] = count_V[order_V].cumsum() - count_V[order_V]
    whitespace_V = np.array([tokenizer.decode([token]).isspace() for token in range(tokenizer.vocab_size)])
    return before_V < FREQUENT * train.size, before_V >= (1 - RARE) * train.size, whitespace_V
