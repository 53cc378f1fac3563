"""Hashes of the last tokens: the rows of tables in which n-grams are looked up.

From Cheng et al. 2026 (arXiv 2601.07372, section 2.2), with the multipliers of transformers' Qwen4-Exp. For n = 2 ... N
and each of the heads of n, with a table of its own of a prime number of rows p:

    mixed_n(t) = (m_0 id_t) xor (m_1 id_{t-1}) xor ... xor (m_{n-1} id_{t-n+1})
    row        = mixed_n(t) mod p + the rows of the tables before

The multipliers m are odd, and so small that no product exceeds 63 bits: signed 64-bit integers then never wrap around,
and the remainder is that of a positive number in every library. `naive_ngram_hash` is the definition in Python's
integers; `shifted_ngram_hash` works on all positions at once.

Shapes: B batch, T time, N longest n-gram, X tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

WORD = (1 << 64) - 1


def naive_ngram_hash(
    idx_BT: Tensor, past_BN: Tensor, multipliers: Sequence[int], sizes: Sequence[Sequence[int]]
) -> Tensor:
    """The definition, one position after another; arguments and result as in `ngram_hash`."""
    rows: list[list[list[int]]] = []
    for past, idx in zip(past_BN.tolist(), idx_BT.tolist(), strict=True):
        history = past + idx
        of_row: list[list[int]] = []
        for t in range(len(past), len(history)):
            found: list[int] = []
            start = 0
            for n, tables in enumerate(sizes, start=2):
                mixed = 0
                for i in range(n):
                    mixed ^= history[t - i] * multipliers[i]
                for size in tables:
                    found.append(mixed % size + start)
                    start += size
            of_row.append(found)
        rows.append(of_row)
    return torch.tensor(rows, dtype=torch.int64, device=idx_BT.device)


def shifted_ngram_hash(
    idx_BT: Tensor, past_BN: Tensor, multipliers: Sequence[int], sizes: Sequence[Sequence[int]]
) -> Tensor:
    """The fast form, one pass for each token of an n-gram; arguments and result as in `ngram_hash`."""
    T, past = idx_BT.shape[1], past_BN.shape[1]
    history_BT = torch.cat([past_BN, idx_BT], dim=1)
    mixed_BT, start = idx_BT * multipliers[0], 0
    rows: list[Tensor] = []
    for i, tables in enumerate(sizes, start=1):
        mixed_BT = mixed_BT ^ (history_BT[:, past - i : past - i + T] * multipliers[i])
        for size in tables:
            rows.append(mixed_BT % size + start)
            start += size
    return torch.stack(rows, dim=-1)


def ngram_hash(idx_BT: Tensor, past_BN: Tensor, multipliers: Sequence[int], sizes: Sequence[Sequence[int]]) -> Tensor:
    """Returns the rows (B, T, X) of the n-grams that end at each position, in tables that lie one after another.

    Args:
        idx_BT: token ids, int64.
        past_BN: the N - 1 ids before them.
        multipliers: N odd numbers, from `hash_multipliers`.
        sizes: for n = 2 ... N the numbers of rows of its tables, from `prime_sizes`.
    """
    return shifted_ngram_hash(idx_BT, past_BN, multipliers, sizes)


def hash_multipliers(count: int, ids: int, seed: int) -> list[int]:
    """Returns `count` odd numbers, each of which times any of `ids` token ids has at most 63 bits."""
    half = max(1, ((1 << 63) - 1) // ids // 2)
    return [2 * (_mixed_bits(seed + 0x9E3779B97F4A7C15 * (i + 1)) % half) + 1 for i in range(count)]


def _mixed_bits(value: int) -> int:
    """SplitMix64 (Steele et al. 2014): 64 bits that look random, in arithmetic that wraps around."""
    value = (value + 0x9E3779B97F4A7C15) & WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def prime_sizes(least: int, n_orders: int, n_heads: int, skip: int = 0) -> list[list[int]]:
    """Returns distinct primes from `least` on, `n_heads` for each of `n_orders`, after leaving out the first `skip`."""
    primes: list[int] = []
    candidate = max(2, least)
    while len(primes) < skip + n_orders * n_heads:
        if all(candidate % divisor for divisor in range(2, isqrt(candidate) + 1)):
            primes.append(candidate)
        candidate += 1
    return [primes[skip + i * n_heads : skip + (i + 1) * n_heads] for i in range(n_orders)]
