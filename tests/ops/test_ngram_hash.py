"""The hash of n-grams against Python's integers; its multipliers and table sizes against those of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen4_exp import modeling_qwen4_exp as theirs

from lmzoo.ops.ngram_hash import hash_multipliers, naive_ngram_hash, ngram_hash, prime_sizes
from tests.cases import each_case


@each_case("T, N", [(1, 2), (1, 4), (2, 4), (9, 3)])
def test_ngram_hash_is_the_naive_one(T: int, N: int) -> None:
    """With ids up to the largest, so that products have 63 bits."""
    ids = 200_000
    draw = torch.Generator().manual_seed(T)
    idx, past = (torch.randint(ids, (3, length), generator=draw) for length in (T, N - 1))
    idx[0], past[0] = ids - 1, ids - 1
    multipliers, sizes = hash_multipliers(N, ids, seed=5), prime_sizes(100, N - 1, 3)
    rows = ngram_hash(idx, past, multipliers, sizes)
    assert torch.equal(rows, naive_ngram_hash(idx, past, multipliers, sizes))
    assert rows.shape == (3, T, 3 * (N - 1))


def test_ngram_hash_stays_in_the_table_of_each_head() -> None:
    idx, past = torch.arange(500).view(1, -1), torch.zeros(1, 2, dtype=torch.int64)
    rows = ngram_hash(idx, past, hash_multipliers(3, 501, seed=0), [[5, 7], [11, 13]])
    assert rows[0].amin(dim=0).tolist() == [0, 5, 12, 23]
    assert rows[0].amax(dim=0).tolist() == [4, 11, 22, 35]


@pytest.mark.parametrize("ids", [14, 151_936])
def test_hash_multipliers_equal_transformers(ids: int) -> None:
    found = hash_multipliers(4, ids, seed=1234 + 10007 * 3)
    assert found == theirs._build_layer_multipliers(ids, 4, 3, 1234).tolist()
    assert all(m % 2 and m * (ids - 1) < 1 << 63 for m in found)


def test_prime_sizes_equal_transformers_and_are_distinct() -> None:
    first, second = prime_sizes(100, 2, 3), prime_sizes(100, 2, 3, skip=6)
    assert first + second == [[101, 103, 107], [109, 113, 127], [131, 137, 139], [149, 151, 157]]
    assert second[0][0] == theirs._find_nth_prime_after(99, 7)
