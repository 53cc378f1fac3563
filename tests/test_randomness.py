"""Tests of random numbers by (seed, count): they equal the published generator and are uniform."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import InputError
from lmzoo.randomness import row_seeds, uniforms
from tests.helpers import seeded


def test_uniforms_are_splitmix64() -> None:
    def reference(seed: int, count: int) -> float:
        mask = (1 << 64) - 1

        def output(z: int) -> int:
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            return z ^ (z >> 31)

        gamma = 0x9E3779B97F4A7C15
        assert output(gamma) == 0xE220A8397B1DCDAF  # the first output of the published generator from the state 0
        start = output((seed + gamma) & mask)
        return (output((start + (count + 1) * gamma) & mask) >> 12) / 2**52

    seeds = [0, 1, 2**62 + 12345, 2**63 - 2]
    for count in (0, 1, 1000):
        got = uniforms(torch.tensor(seeds), torch.full((4,), count))
        assert got.tolist() == [reference(seed, count) for seed in seeds]


def test_uniforms_are_uniform_across_seeds_and_counts() -> None:
    n = 65_536
    zeros, counts = torch.zeros(n, dtype=torch.long), torch.arange(n)
    for numbers in (uniforms(zeros, counts), uniforms(counts, zeros)):  # one row's stream; the rows of seeds 0, 1, 2...
        cells = (numbers[:-1] * 16).long() * 16 + (numbers[1:] * 16).long()  # pairs of neighbours in a 16 by 16 grid
        expected = (n - 1) / 256
        chi_square = ((cells.bincount(minlength=256) - expected) ** 2 / expected).sum()
        assert chi_square < 350  # mean 255, standard deviation 22.6


def test_row_seeds_are_checked() -> None:
    assert row_seeds(2, None, [3, 4]).tolist() == [3, 4]
    assert torch.equal(row_seeds(5, seeded())[:2], row_seeds(2, seeded()))
    with pytest.raises(InputError, match="seeds has 1 entries: there must be one for each of the 2 rows"):
        row_seeds(2, None, [3])
    with pytest.raises(InputError, match="seeds holds -1"):
        row_seeds(1, None, [-1])
    with pytest.raises(InputError, match="both given"):
        row_seeds(1, seeded(), [1])
