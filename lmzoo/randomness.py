"""Counter-based random numbers, a function of (seed, count): the draws of a row do not depend on its batch.

Each row has a seed; its n-th number is the n-th output of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", OOPSLA) started at the scrambled seed. There is no generator state, so rows can be
dropped, copied or joined freely, and a CPU and a GPU draw the same numbers. Legend: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmzoo import arguments
from lmzoo.errors import InputError

SEED_LIMIT = (1 << 63) - 1  # seeds are in [0, SEED_LIMIT)


def _signed(value: int) -> int:
    """Convert an unsigned 64-bit number to the int64 with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)  # the constants of SplitMix64
_FACTOR_1 = _signed(0xBF58476D1CE4E5B9)
_FACTOR_2 = _signed(0x94D049BB133111EB)


def row_seeds(batch_size: int, generator: torch.Generator | None = None, seeds: Sequence[int] | None = None) -> Tensor:
    """Returns a seed per row, (B,) int64 on the CPU: the given `seeds`, else the next B integers of `generator`.

    Seed r does not depend on the number of rows after it. Without either argument, torch's global generator is used.
    Raises `InputError` when both are given, or `seeds` are not B integers in [0, 2^63 - 1).
    """
    arguments.generator(generator)
    if seeds is None:
        device = "cpu" if generator is None else generator.device
        return torch.randint(SEED_LIMIT, (batch_size,), generator=generator, device=device).cpu()
    if generator is not None:
        raise InputError("seeds and generator are both given: give one of them")
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, (Sequence, Tensor)):
        raise InputError(f"seeds={seeds!r} must be a sequence of integers, one for each row")
    if len(seeds) != batch_size:
        raise InputError(f"seeds has {len(seeds)} entries: there must be one for each of the {batch_size} rows")
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEED_LIMIT:
            raise InputError(f"seeds holds {seed!r}: a seed must be an integer in [0, {SEED_LIMIT})")
    return torch.tensor(list(seeds), dtype=torch.long)


def uniforms(seeds_B: Tensor, count_B: Tensor) -> Tensor:
    """Returns number `count_B` (from 0) of the stream of each row: (B,) float64, a multiple of 2^-52 in [0, 1)."""
    bits_B = _scramble(_scramble(seeds_B + _GAMMA) + (count_B + 1) * _GAMMA)
    return _shift_right(bits_B, 12).double() * 2.0**-52


def _scramble(z: Tensor) -> Tensor:
    """The output function of SplitMix64; int64 products keep the same low 64 bits as unsigned ones."""
    z = (z ^ _shift_right(z, 30)) * _FACTOR_1
    z = (z ^ _shift_right(z, 27)) * _FACTOR_2
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, by: int) -> Tensor:
    """Logical right shift: fills with zeros, unlike the shift of int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)
