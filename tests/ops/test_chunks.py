"""Tests how sequences are cut into chunks and tiles."""

from __future__ import annotations

import pytest
import torch

from lmzoo.ops import chunks
from lmzoo.ops.chunks import in_chunks, padded, steps, sums_of_later, tiles


def test_padded_adds_zeros_up_to_a_whole_chunk() -> None:
    x = torch.randn(2, 5, 3, 4)
    assert torch.equal(padded(x, 4), torch.cat([x, torch.zeros(2, 3, 3, 4)], dim=1))
    assert torch.equal(padded(x[..., 0], 4), padded(x, 4)[..., 0])
    assert padded(x, 5) is x


def test_in_chunks_is_a_view_with_the_chunks_first() -> None:
    x = torch.randn(2, 6, 3, 4)
    parts = in_chunks(x, 2)
    for n, b, h, c in ((0, 0, 0, 0), (2, 1, 2, 1), (1, 0, 2, 1)):
        assert torch.equal(parts[n, b, h, c], x[b, 2 * n + c, h])
    parts.zero_()
    assert not x.any()


@pytest.mark.parametrize(
    ("N", "size", "expected"),
    [(7, 10, [7]), (7, 20, [4, 3]), (7, 35, [3, 3, 1]), (7, 100, [1] * 7), (7, 1000, [1] * 7), (3, 0, [3])],
)
def test_tiles_have_about_the_same_size(
    monkeypatch: pytest.MonkeyPatch, N: int, size: int, expected: list[int]
) -> None:
    monkeypatch.setattr(chunks, "TILE", 100)
    found = tiles(N, size)
    assert [tile.stop - tile.start for tile in found] == expected
    assert [n for tile in found for n in range(tile.start, tile.stop)] == list(range(N))


def test_steps_are_the_chunks_of_a_tile() -> None:
    x = torch.randn(3, 4, 5)
    assert torch.equal(torch.stack(steps(x.flatten(0, 1), 3)), x)


def test_sums_of_later_goes_from_the_end_of_the_tile_to_its_start() -> None:
    grad, end = torch.randn(3, 2, 4, 5, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    sums = sums_of_later(grad, end)
    for n, c in ((0, 0), (1, 3), (2, 0), (2, 4)):
        later = grad[n, :, :, c:].sum(-1) + grad[n + 1 :].sum((0, 3)) + end
        torch.testing.assert_close(sums[n, :, :, c], later, rtol=0, atol=1e-12)
