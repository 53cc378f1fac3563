"""Counted n-grams of all orders in one sorted table, and the interpolated Witten-Bell estimate from it.

The estimate for the token w after the context h (Witten & Bell 1991, "The zero-frequency problem", method C):

    p(w | h) = (c(h, w) + t(h) p(w | h')) / (c(h) + t(h))

c are counts, t(h) is the number of distinct tokens seen after h, h' is h without its oldest token, and below the empty
context p = 1 / V. A context that was never seen has c(h) = t(h) = 0: the shorter context replaces it.

The n-grams are the nodes of a tree, numbered from 1 by order and then by key. Node 0 is the empty context, and the key
of an n-gram is the node of its first n - 1 tokens, times V, plus its last token. So the keys of all orders are sorted,
and the n-grams that continue a context are a range of the table. A number below 0 stands for a context that is not in
the table.

`naive_witten_bell` is the definition with dictionaries; `probabilities` gives all tokens after many contexts at once,
and `token_probabilities` only the given ones.

Shapes: B batch, T time, V vocabulary, D contexts that end at one position, of 0 to D - 1 tokens, N rows of a table,
X contexts of any shape, M n-grams that continue them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = (1 << 63) - 1  # the key of an unused row; larger than every other key, so that the keys stay sorted
UNSEEN = -1  # the number of a context that is not in the table


class Counts(NamedTuple):
    """A table of n-grams; rows that are not used lie at its end."""

    keys_N: Tensor  # int64, sorted: node of the context times V, plus the token
    before_N1: Tensor  # int64, one more than the keys: the counts of all rows before this one, added up


def naive_witten_bell(rows: Sequence[Sequence[int]], vocab_size: int, context: Sequence[int]) -> list[float]:
    """The definition: the estimate for every token after `context`, counted in the texts `rows`."""
    n, h = len(context), tuple(context)
    seen = Counter(row[i] for row in rows for i in range(n, len(row)) if tuple(row[i - n : i]) == h)
    shorter = naive_witten_bell(rows, vocab_size, h[1:]) if h else [1 / vocab_size] * vocab_size
    c, t = seen.total(), len(seen)
    return [(seen[w] + t * shorter[w]) / (c + t) if c else shorter[w] for w in range(vocab_size)]


def count(tokens_BT: Tensor, vocab_size: int, order: int, capacity: int | None = None) -> Counts:
    """Counts the n-grams of 1 to `order` tokens in rows of ids below `vocab_size`; none crosses the start of a row.

    Negative ids at the end of a row are padding: the row ends before them.
    With a `capacity`, the table has exactly that many rows. If there are more n-grams, the most frequent ones are kept,
    of equally frequent ones those with smaller numbers. The context of an n-gram is at least as frequent and has a
    smaller number, so it is kept too.
    """
    node_BT = torch.zeros_like(tokens_BT)  # of the context before each token; at first the empty one
    nothing = tokens_BT.new_empty(0)
    keys, seen, first = [nothing], [nothing], 1
    for n in range(min(order, tokens_BT.shape[1])):
        inside_BT = tokens_BT[:, n:] >= 0
        key_M = (node_BT * vocab_size + tokens_BT[:, n:])[inside_BT]
        of_order, number_M, times = torch.unique(key_M, return_inverse=True, return_counts=True)
        number_BT = torch.zeros_like(node_BT).masked_scatter(inside_BT, number_M)
        keys.append(of_order)
        seen.append(times)
        node_BT = first + number_BT[:, :-1]  # the n-gram that ends at a token is the context of the next one
        first += len(of_order)
    key_N, seen_N = torch.cat(keys), torch.cat(seen)
    if capacity is not None:
        key_N, seen_N = _resized(key_N, seen_N, vocab_size, capacity)
    return Counts(key_N, F.pad(seen_N.cumsum(0), (1, 0)))


def _resized(key_N: Tensor, seen_N: Tensor, vocab_size: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Returns tables of `capacity` rows, with the most frequent n-grams or with unused rows at the end."""
    if len(key_N) > capacity:
        kept_N = torch.zeros_like(key_N)
        kept_N[seen_N.argsort(descending=True, stable=True)[:capacity]] = 1
        number_N1 = F.pad(kept_N.cumsum(0), (1, 0))  # of the nodes that are kept; the empty context is still 0
        key_N, seen_N = key_N[kept_N > 0], seen_N[kept_N > 0]
        key_N = number_N1[key_N // vocab_size] * vocab_size + key_N % vocab_size
    unused = capacity - len(key_N)
    return torch.cat([key_N, key_N.new_full((unused,), EMPTY)]), F.pad(seen_N, (0, unused))


def start(batch_size: int, contexts: int, device: torch.device | None = None) -> Tensor:
    """Returns the nodes (B, D) before the first token: the empty context, and longer ones that are not there yet."""
    nodes_BD = torch.full((batch_size, contexts), UNSEEN, dtype=torch.int64, device=device)
    nodes_BD[:, :1] = 0
    return nodes_BD


def read(counts: Counts, vocab_size: int, idx_BT: Tensor, before_BD: Tensor) -> Tensor:
    """Returns the nodes (B, T, D) of the contexts that end at each token, given those before the first one.

    The context of n tokens that ends at t continues the one of n - 1 tokens that ends at t - 1.
    """
    nodes = [torch.zeros_like(idx_BT)]
    for n in range(1, before_BD.shape[1]):
        shorter_BT = torch.cat([before_BD[:, n - 1 : n], nodes[-1][:, :-1]], dim=1)
        rows_BT = _rows(counts, vocab_size, shorter_BT, idx_BT)
        nodes.append((rows_BT + 1).where(rows_BT >= 0, UNSEEN))
    return torch.stack(nodes, dim=-1)


def token_probabilities(counts: Counts, vocab_size: int, nodes_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Returns the estimates (B, T), float64, of one token after each position."""
    p_BT = torch.full(targets_BT.shape, 1 / vocab_size, dtype=torch.float64, device=targets_BT.device)
    for nodes_BT in nodes_BTD.unbind(-1):
        _, t_BT, c_BT = _followers(counts, vocab_size, nodes_BT)
        rows_BT = _rows(counts, vocab_size, nodes_BT, targets_BT)
        seen_BT = (counts.before_N1[rows_BT + 1] - counts.before_N1[rows_BT]).where(rows_BT >= 0, 0)
        p_BT = ((seen_BT + t_BT * p_BT) / (c_BT + t_BT)).where(c_BT > 0, p_BT)
    return p_BT


def probabilities(counts: Counts, vocab_size: int, nodes_XD: Tensor) -> Tensor:
    """Returns the estimates (..., V), float64, of every token after the contexts (..., D).

    The tokens that continue a context are a range of the table, so the work follows their number, not V, except for
    the empty context, which is the same everywhere.
    """
    flat_XD = nodes_XD.reshape(-1, nodes_XD.shape[-1])
    p_XV = torch.full((1, vocab_size), 1 / vocab_size, dtype=torch.float64, device=nodes_XD.device)
    p_XV = _interpolated(counts, vocab_size, p_XV, flat_XD.new_zeros(1)).repeat(len(flat_XD), 1)
    for nodes_X in flat_XD.unbind(-1)[1:]:
        p_XV = _interpolated(counts, vocab_size, p_XV, nodes_X)
    return p_XV.view(*nodes_XD.shape[:-1], vocab_size)


def _interpolated(counts: Counts, vocab_size: int, p_XV: Tensor, nodes_X: Tensor) -> Tensor:
    """Changes the estimates after shorter contexts into those after `nodes_X`, in place, and returns them."""
    low_X, t_X, c_X = _followers(counts, vocab_size, nodes_X)
    total_X = (c_X + t_X).clamp(min=1).double()
    p_XV *= (t_X / total_X).where(c_X > 0, 1.0)[:, None]
    # M continuations of all contexts
    owner_M = torch.arange(len(nodes_X), device=nodes_X.device).repeat_interleave(t_X)
    rank_M = torch.arange(len(owner_M), device=nodes_X.device) - (t_X.cumsum(0) - t_X)[owner_M]
    rows_M = low_X[owner_M] + rank_M
    seen_M = counts.before_N1[rows_M + 1] - counts.before_N1[rows_M]
    p_XV[owner_M, counts.keys_N[rows_M] % vocab_size] += seen_M / total_X[owner_M]
    return p_XV


def _followers(counts: Counts, vocab_size: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the first row, the number of rows, and the counts of the n-grams that continue each context."""
    known = nodes >= 0
    nodes = nodes.where(known, 0)
    low = torch.searchsorted(counts.keys_N, nodes * vocab_size)
    high = torch.searchsorted(counts.keys_N, (nodes + 1) * vocab_size).where(known, low)
    seen = counts.before_N1[high] - counts.before_N1[low]
    return low, (high - low).where(seen > 0, 0), seen


def _rows(counts: Counts, vocab_size: int, nodes: Tensor, tokens: Tensor) -> Tensor:
    """Returns the row of the n-gram that continues each context by a token; -1 if it is not in the table."""
    keys = (nodes * vocab_size + tokens).where(nodes >= 0, EMPTY)
    rows = torch.searchsorted(counts.keys_N, keys).clamp(max=len(counts.keys_N) - 1)
    return rows.where((counts.keys_N[rows] == keys) & (nodes >= 0), -1)
