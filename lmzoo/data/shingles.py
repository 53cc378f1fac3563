"""Shingles: the sequences of 50 characters in a text, as 64-bit hashes. Texts that share shingles share copied text."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SHINGLE = 50  # characters
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_MODULUS = 1 << 64
_TABLE_BITS = 24  # at most
_BLOCK = 1 << 15  # hashes that are computed together, so that they fit in the cache of a CPU core


def shingles(text: str) -> Hashes:
    """Returns the hash of each sequence of `SHINGLE` characters, in order: (N - SHINGLE + 1,), empty for short texts.

    The hash is a polynomial of the code points modulo 2**64, which is a difference of two prefix sums.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    n_hashes = max(0, len(codes) - SHINGLE + 1)
    hashes = np.empty(n_hashes, np.uint64)
    falling, rising = _powers()
    for start in range(0, n_hashes, _BLOCK):
        size = min(_BLOCK, n_hashes - start)
        n_codes = size + SHINGLE - 1
        sums = np.zeros(n_codes + 1, np.uint64)
        np.cumsum(codes[start : start + n_codes] * falling[:n_codes], out=sums[1:])
        np.multiply(sums[SHINGLE:] - sums[:-SHINGLE], rising[:size], out=hashes[start : start + size])
    return hashes


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """Returns the powers of `_BASE` with the exponents 0, -1, -2, ..., and `SHINGLE`, `SHINGLE` + 1, ..."""
    falling = np.full(_BLOCK + SHINGLE, pow(_BASE, -1, _MODULUS), np.uint64)
    rising = np.full(_BLOCK, _BASE, np.uint64)
    falling[0], rising[0] = 1, pow(_BASE, SHINGLE, _MODULUS)
    return np.cumprod(falling), np.cumprod(rising)


class Lookup:
    """Finds hashes in a sorted set of them. A table over their highest bits rules out most of the others at once."""

    def __init__(self, wanted: Hashes) -> None:
        self._wanted = wanted
        bits = min(_TABLE_BITS, len(wanted).bit_length() + 5)  # a small table fits in the cache of a CPU core
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[wanted >> self._shift] = True

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """Returns the places in `wanted` of those `hashes` that are in it, in their order."""
        hashes = hashes[self._table[hashes >> self._shift]]
        at = np.searchsorted(self._wanted, hashes)
        at[at == self._wanted.size] = 0
        return at[self._wanted[at] == hashes]
