"""Tests the tiles of the delta rule against the sums and products that they stand for."""

from __future__ import annotations

import pytest
import torch

from lmzoo.ops.delta_tiles import Chunks, times

B, N, H, C, K, V = 2, 3, 2, 4, 3, 5


@pytest.mark.parametrize("decays", [False, True])
def test_chunks_tile_has_the_decays_between_all_positions_of_a_chunk(decays: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(B, N * C, H, width, generator=draw, dtype=torch.float64) for width in (K, K, V))
    beta = torch.rand(B, N * C, H, generator=draw, dtype=torch.float64)
    log_decay = -torch.rand(B, N * C, H, generator=draw, dtype=torch.float64) if decays else None
    tile = Chunks(q, k, v, beta, log_decay, C).tile(slice(1, 3))
    scores = tile.scores(tile.q_LQK).view(2, B, H, 2, C, C)
    near_q, near_k = tile.near_q_LQK.view(2, B, H, 2, C, K), tile.near_k_LCK.view(2, B, H, C, K)
    log = torch.zeros_like(beta) if log_decay is None else log_decay
    for n in range(2):
        start = (1 + n) * C
        for t in range(C):
            since = log[:, start : start + t + 1].sum(1).exp()[..., None]
            torch.testing.assert_close(near_q[n, :, :, 0, t], q[:, start + t] * since)
            torch.testing.assert_close(near_q[n, :, :, 1, t], k[:, start + t] * since)
            until = log[:, start + t + 1 : start + C].sum(1).exp()
            torch.testing.assert_close(near_k[n, :, :, t], k[:, start + t] * (beta[:, start + t] * until)[..., None])
            for s in range(C):
                between = log[:, start + s + 1 : start + t + 1].sum(1).exp() if s <= t else 0.0
                product = (q[:, start + t] * k[:, start + s]).sum(-1) * beta[:, start + s]
                torch.testing.assert_close(scores[n, :, :, 0, t, s], product * between)
    kept = log.view(B, N, C, H)[:, 1:].sum(2).exp().transpose(0, 1)
    torch.testing.assert_close(tile.kept_L11.view(2, B, H), kept)


def test_times_multiplies_each_set_of_queries() -> None:
    x, factor = torch.arange(12.0).view(1, 4, 3), torch.tensor([[[2.0], [3.0]]])
    expected = x * torch.tensor([2.0, 3.0, 2.0, 3.0])[:, None]
    assert torch.equal(times(x, factor), expected)
