"""Shingles: the sequences of 50 characters in a text, as 64-bit hashes. Texts that share shingles share copied text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SHINGLE = 50  # characters
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplication by it is invertible modulo 2**64
_MODULUS = 1 << 64


def shingles(text: str) -> Hashes:
    """Returns the hash of each sequence of `SHINGLE` characters, in order: (N - SHINGLE + 1,), empty for short texts.

    The hash is a polynomial of the code points modulo 2**64. Hashes of longer sequences are combined from shorter ones,
    so that the whole text takes a few operations on arrays.
    """
    n_hashes = len(text) - SHINGLE + 1
    if n_hashes < 1:
        return np.empty(0, np.uint64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    power = codes.astype(np.uint64) * np.uint64(_BASE)  # hashes of sequences of 1, 2, 4, ... characters
    length, found, found_length = 1, np.zeros(len(codes) + 1, np.uint64), 0
    for bit in reversed(f"{SHINGLE:b}"):
        if bit == "1":
            found = _joined(found, found_length, power, length)
            found_length += length
        power = _joined(power, length, power, length)
        length *= 2
    return found[:n_hashes]


def _joined(first: Hashes, first_length: int, second: Hashes, second_length: int) -> Hashes:
    """Returns the hashes of the sequences that consist of a sequence of `first` and the adjacent one of `second`."""
    n_hashes = max(0, len(second) - first_length)
    factor = np.uint64(pow(_BASE, second_length, _MODULUS))
    return first[:n_hashes] * factor + second[first_length:]
