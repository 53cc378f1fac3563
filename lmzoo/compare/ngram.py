"""Baselines without training: interpolated Witten-Bell n-grams, and the exact limits of a bigram table.

A model with a higher loss than counted n-grams of the same text has learned little. The estimate of order n
interpolates the counts after the last n - 1 tokens with the estimate of order n - 1 (Witten & Bell 1991, method C):

    p_n(w | h) = (c(h, w) + t(h) p_{n-1}(w | h')) / (c(h) + t(h))

c are counts, t(h) is the number of distinct tokens seen after h, h' is h without its oldest token, and p_0 = 1 / V. A
context that was never seen has c(h) = t(h) = 0: the shorter context replaces it. Counting is vectorized: the n-grams of
an order are numbered from 0, and this number times V plus the next token is the key of the (n+1)-gram.

Tokens may be given in rows, windows of a text that are counted or predicted separately: no context crosses the start of
a window, as in a model that reads one window at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lmzoo.errors import ConfigError, DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_ORDER = 6


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one order, sorted by key; contexts are numbered as the n-grams of the order below."""

    keys: Ints  # (N,) context number * V + token
    seen: Ints  # (N,) count of the n-gram
    context_seen: Ints  # (contexts,) number of tokens that followed the context
    followers: Ints  # (contexts,) number of distinct tokens that followed the context


class NGram:
    """Interpolated Witten-Bell estimates of every order from 1 to `order`, counted on `tokens`."""

    def __init__(self, tokens: NDArray[Any], vocab_size: int, order: int = MAX_ORDER) -> None:
        """Count `tokens` (1-D, or rows; ids below `vocab_size`). Raises `ConfigError` or `DataError`."""
        if not 1 <= order <= MAX_ORDER:
            raise ConfigError(f"order={order} must be in [1, {MAX_ORDER}]")
        ids = _checked(tokens, vocab_size)
        length = ids.shape[-1]
        if length < order:
            raise DataError(f"tokens holds {length} tokens: order={order} needs at least that many")
        self.vocab_size = vocab_size
        self.order = order
        self._counts: list[_Counts] = []
        context = np.zeros(ids.shape, np.int64)  # the one empty context, before every token
        contexts = 1
        for _ in range(order):
            here = ids[..., length - context.shape[-1] :]
            keys, number, seen = np.unique(context * vocab_size + here, return_inverse=True, return_counts=True)
            owner = keys // vocab_size
            context_seen = np.bincount(owner, weights=seen, minlength=contexts).astype(np.int64)
            self._counts.append(_Counts(keys, seen, context_seen, np.bincount(owner, minlength=contexts)))
            # The n-gram that ends at a token is the context of the next one.
            context, contexts = number.reshape(here.shape)[..., :-1], len(keys)

    def probabilities(self, tokens: NDArray[Any], order: int | None = None) -> Floats:
        """p(token | tokens before it in its row), shaped as `tokens`; the first tokens have shorter contexts."""
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise ConfigError(f"order={order} must be in [1, {self.order}]")
        ids = _checked(tokens, self.vocab_size)
        p = np.full(ids.shape, 1.0 / self.vocab_size)
        context = np.zeros(ids.shape, np.int64)
        for n, counts in enumerate(self._counts[:order]):
            known = context >= 0
            at = np.where(known, context, 0)
            c = np.where(known, counts.context_seen[at], 0)
            t = np.where(known, counts.followers[at], 0)
            number = _find(counts.keys, np.where(known, context * self.vocab_size + ids[..., n:], -1))
            seen = np.where(number >= 0, counts.seen[number], 0)
            backed = c > 0
            p[..., n:][backed] = ((seen + t * p[..., n:]) / np.maximum(c + t, 1))[backed]
            context = number[..., :-1]
        return p

    def next_probabilities(self, context: Ints) -> Floats:
        """p(token | context) for every token, (V,); at most the last `order - 1` ids of `context` (1-D) matter."""
        p = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for n, counts in enumerate(self._counts[: len(context) + 1]):
            number = np.zeros(1, np.int64)
            for below, token in zip(self._counts, context[len(context) - n :], strict=False):
                number = _find(below.keys, number * self.vocab_size + token) if number[0] >= 0 else number
            c, t = (int(a[number[0]]) if number[0] >= 0 else 0 for a in (counts.context_seen, counts.followers))
            if c == 0:
                break  # never seen, so no longer context was seen either
            low, high = np.searchsorted(counts.keys, [number[0] * self.vocab_size, (number[0] + 1) * self.vocab_size])
            p *= t / (c + t)
            p[counts.keys[low:high] % self.vocab_size] += counts.seen[low:high] / (c + t)
        return p

    def loss(self, tokens: NDArray[Any], order: int | None = None, *, context_length: int) -> float:
        """Mean nats per token over all targets of a split: all tokens except the first.

        The split is read in windows of `context_length` targets that do not overlap, as `evaluate` reads it for models.
        """
        windows = _evaluation_windows(tokens, context_length)
        logs = [np.log(self.probabilities(rows, order)[:, 1:]).ravel() for rows in windows]
        return float(-np.concatenate(logs).mean())


def bigram_limits(train: NDArray[Any], vocab_size: int, val: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest losses that a bigram table can reach, in nats per token: (on `train`, on `val`).

    On `train` (1-D, or rows), the loss of the maximum-likelihood table (the conditional entropy of the counts: a lower
    bound of every bigram). On `val`, every count is increased by one, since a pair that was never seen would have an
    infinite loss.
    """
    trained, held_out = _checked(train, vocab_size), _checked(val, vocab_size)
    pairs, seen = np.unique(trained[..., :-1] * vocab_size + trained[..., 1:], return_counts=True)
    context_seen = np.bincount(pairs // vocab_size, weights=seen, minlength=vocab_size)
    on_train = -(seen * np.log(seen / context_seen[pairs // vocab_size])).sum() / seen.sum()
    number = _find(pairs, held_out[:-1] * vocab_size + held_out[1:])
    pair_seen = np.where(number >= 0, seen[number], 0)
    on_val = -np.log((pair_seen + 1) / (context_seen[held_out[:-1]] + vocab_size)).mean()
    return float(on_train), float(on_val)


def _evaluation_windows(tokens: NDArray[Any], context_length: int) -> list[NDArray[Any]]:
    """Cut tokens into rows of `context_length` + 1 that overlap by one token; the last row may be shorter."""
    whole = (len(tokens) - 1) // context_length * context_length
    rows = [] if whole == 0 else [sliding_window_view(tokens[: whole + 1], context_length + 1)[::context_length]]
    return rows if whole == len(tokens) - 1 else [*rows, tokens[None, whole:]]


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Return the index of each of `wanted` in the sorted `keys`, or -1."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _checked(tokens: NDArray[Any], vocab_size: int) -> Ints:
    if tokens.ndim not in (1, 2) or tokens.shape[-1] < 2:
        raise DataError(f"tokens has shape {tokens.shape}: counting needs one dimension, or rows, of at least 2 tokens")
    ids = np.asarray(tokens, dtype=np.int64)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise DataError(f"tokens holds the id {low if low < 0 else high}: ids must be in [0, vocab_size={vocab_size})")
    return ids
