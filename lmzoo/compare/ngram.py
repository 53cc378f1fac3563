"""Baselines without training: interpolated Witten-Bell n-grams, and the exact limits of a bigram table.

A model with a higher loss than counted n-grams of the same text has learned little. `lmzoo.ops.ngram` has the equations
and the table of counts; the model `ngram` uses them too.

Tokens may be given in rows, windows of a text that are counted or predicted separately: no context crosses the start of
a window, as in a model that reads one window at a time. A shorter row is padded at its end with `IGNORE_INDEX`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmzoo.compare.results import Reference
from lmzoo.compare.windows import separated, targets_of, training_rows
from lmzoo.data.batches import Windows, eval_windows, require_stride
from lmzoo.data.documents import split_windows
from lmzoo.data.store import TokenSplit, TokenStore
from lmzoo.errors import ConfigError, DataError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.ops import ngram
from lmzoo.train.carried import rows_of
from lmzoo.train.config import TrainConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_ORDER = 6
COUNTED_TOKENS = 20_000_000  # largest number of tokens counted, which are all held in memory
_TOKENS_AT_A_TIME = 1 << 20


class NGram:
    """Interpolated Witten-Bell estimates of every order from 1 to `order`, counted on `tokens`."""

    def __init__(self, tokens: NDArray[Any], vocab_size: int, order: int = MAX_ORDER) -> None:
        """Count `tokens` (1-D, or rows; ids below `vocab_size`). Raises `ConfigError` or `DataError`."""
        if not 1 <= order <= MAX_ORDER:
            raise ConfigError(f"order={order} must be in [1, {MAX_ORDER}]")
        ids = _checked(tokens, vocab_size)
        if ids.shape[-1] < order:
            raise DataError(f"tokens holds {ids.shape[-1]} tokens: order={order} needs at least that many")
        self.vocab_size = vocab_size
        self.order = order
        self._counts = ngram.count(torch.from_numpy(np.atleast_2d(ids)), vocab_size, order)

    def probabilities(self, tokens: NDArray[Any], order: int | None = None) -> Floats:
        """p(token | tokens before it in its row), shaped as `tokens`; the first tokens have shorter contexts.

        The values of padding mean nothing.
        """
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise ConfigError(f"order={order} must be in [1, {self.order}]")
        ids_BT = torch.from_numpy(np.atleast_2d(_checked(tokens, self.vocab_size)).clip(min=0))
        first_BD = ngram.start(len(ids_BT), order)
        nodes_BTD = ngram.read(self._counts, self.vocab_size, ids_BT[:, :-1], first_BD)
        nodes_BTD = torch.cat([first_BD[:, None], nodes_BTD], dim=1)
        p_BT = ngram.token_probabilities(self._counts, self.vocab_size, nodes_BTD, ids_BT)
        return p_BT.numpy().reshape(tokens.shape)

    def next_probabilities(self, context: Ints) -> Floats:
        """p(token | context) for every token, (V,); at most the last `order - 1` ids of `context` (1-D) matter."""
        nodes_BD = ngram.start(1, self.order)
        if len(context):
            idx_BT = torch.from_numpy(np.asarray(context, dtype=np.int64))[None]
            nodes_BD = ngram.read(self._counts, self.vocab_size, idx_BT, nodes_BD)[:, -1]
        return ngram.probabilities(self._counts, self.vocab_size, nodes_BD)[0].numpy()

    def loss(
        self, tokens: NDArray[Any], order: int | None = None, *, context_length: int, stride: int | None = None
    ) -> float:
        """Mean nats per token over all targets of a split: all tokens except the first.

        The split is read in windows of `context_length` targets that start `stride` apart, as `evaluate` reads it for
        models.
        """
        order = self.order if order is None else order
        stride = require_stride(stride, context_length)
        if stride + order - 2 <= context_length:  # no window cuts the context that an n-gram sees
            return float(-np.log(self.probabilities(tokens, order)[1:]).mean())
        batch_size = max(1, _TOKENS_AT_A_TIME // context_length)
        return self.loss_of_windows(eval_windows(tokens, batch_size, context_length, stride), order)

    def loss_of_windows(self, windows: Iterable[Windows], order: int | None = None) -> float:
        """Mean nats per token over the targets of windows that count."""
        found: list[Floats] = []
        for idx_BT, targets_BT, counted_BT in windows:
            rows_BS = torch.cat([idx_BT[:, :1], targets_BT.clamp(min=0)], dim=1).numpy()
            found.append(self.probabilities(rows_BS, order)[:, 1:][counted_BT.numpy()])
        return float(-np.log(np.concatenate(found)).mean())


def bigram_limits(train: NDArray[Any], vocab_size: int, val: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest losses that a bigram table can reach, in nats per token: (on `train`, on `val`).

    On `train` (1-D, or rows), the loss of the maximum-likelihood table (the conditional entropy of the counts: a lower
    bound of every bigram). On `val`, every count is increased by one, since a pair that was never seen would have an
    infinite loss. Pairs with `IGNORE_INDEX` are left out.
    """
    trained, held_out = _pairs(train, vocab_size), _pairs(val, vocab_size)
    pairs, seen = np.unique(trained, return_counts=True)
    context_seen = np.bincount(pairs // vocab_size, weights=seen, minlength=vocab_size)
    on_train = -(seen * np.log(seen / context_seen[pairs // vocab_size])).sum() / seen.sum()
    number = _find(pairs, held_out)
    pair_seen = np.where(number >= 0, seen[number], 0)
    on_val = -np.log((pair_seen + 1) / (context_seen[held_out // vocab_size] + vocab_size)).mean()
    return float(on_train), float(on_val)


def _pairs(tokens: NDArray[Any], vocab_size: int) -> Ints:
    """Return the first of two neighboring tokens times `vocab_size`, plus the second, of each pair."""
    ids = _checked(tokens, vocab_size)
    first, second = ids[..., :-1], ids[..., 1:]
    return (first * vocab_size + second)[(first != IGNORE_INDEX) & (second != IGNORE_INDEX)]


def count_references(
    store: TokenStore,
    reported: TokenSplit,
    vocab_size: int,
    config: TrainConfig,
    context_length: int,
    stride: int | None = None,
    *,
    carried: bool = False,
) -> tuple[list[Reference], dict[str, float]]:
    """Compute the losses of n-grams on the split that is reported, and the limits of a bigram table.

    They are counted on the windows that the models are trained on, each once, and restart at every window, so they see
    the same text with the same context as the models; `stride` as in the evaluation of models. With a `carried`
    context, they restart at every row on which the models carry theirs.
    """
    train = training_rows(store.train, config, context_length, COUNTED_TOKENS)
    counts = NGram(train, vocab_size, min(MAX_ORDER, context_length + 1))
    bits = reported.n_tokens / (math.log(2) * reported.n_bytes)
    length = int(rows_of(reported, context_length).targets_N.max()) if carried else context_length
    rows = max(1, _TOKENS_AT_A_TIME // length)
    references = []
    for order in range(1, counts.order + 1):
        if reported.ends is None:
            loss = counts.loss(reported.tokens, order, context_length=length, stride=stride)
        else:
            loss = counts.loss_of_windows(split_windows(reported, rows, length), order)
        references.append(
            Reference(
                name=f"{order}-gram",
                order=order,
                loss=loss,
                bits_per_byte=loss * bits,
                counted_tokens=targets_of(train),
            )
        )
    on_train, on_val = bigram_limits(train, vocab_size, separated(reported))
    return references, {"train": on_train, "val": on_val}


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Return the index of each of `wanted` in the sorted `keys`, or -1."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _checked(tokens: NDArray[Any], vocab_size: int) -> Ints:
    if tokens.ndim not in (1, 2) or tokens.shape[-1] < 2:
        raise DataError(f"tokens has shape {tokens.shape}: counting needs one dimension, or rows, of at least 2 tokens")
    ids = np.asarray(tokens, dtype=np.int64)
    low, high = int(ids.min(where=ids != IGNORE_INDEX, initial=0)), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise DataError(f"tokens holds the id {low if low < 0 else high}: ids must be in [0, vocab_size={vocab_size})")
    return ids
