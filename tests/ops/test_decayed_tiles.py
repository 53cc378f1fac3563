"""Tests queries and keys with a decay for each channel against products of decays, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.ops.chunks import in_chunks
from lmzoo.ops.decayed_tiles import SMALLEST_FACTOR, Tiles

B, T, H, K, C = 2, 8, 3, 4, 4
N = T // C
ALL = slice(0, N)


def make_inputs(log_decay: float | None = None, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns q, a, k, b and the log decays, all equal to `log_decay` if it is given."""
    draw = torch.Generator().manual_seed(0)
    *vectors, decays = (torch.randn(B, T, H, K, generator=draw, dtype=torch.float64) for _ in range(5))
    decays = -decays.exp() if log_decay is None else torch.full_like(decays, log_decay)
    return [x.to(dtype) for x in (*vectors, decays)]


def make_tiles(inputs: list[Tensor], *, late: bool = False) -> Tiles:
    q, a, k, b, log_decay = inputs
    return Tiles([q, a], [k, b], log_decay, C, K, late=late)


def scores_of(tiles: Tiles) -> Tensor:
    scores = torch.empty(N * B * H, 2 * C, 2 * C, dtype=tiles.dtype)
    tiles.scores(tiles.tile(ALL), scores)
    return scores


def definition(inputs: list[Tensor], *, late: bool) -> Tensor:
    """The scores of q and then a with k and then b, one pair of positions after another."""
    q, a, k, b, log_decay = (in_chunks(x.double(), C).flatten(0, 2) for x in inputs)
    w, scores = log_decay.exp(), q.new_zeros(len(q), 2, C, 2, C)
    for t in range(C):
        for s in range(t + 1):
            for j, key in enumerate((k, b)):
                scores[:, 0, t, j, s] = (q[:, t] * w[:, s + 1 : t + 1].prod(1) * key[:, s]).sum(-1)
                if s < t:
                    decays = w[:, s + 1 : t + late].prod(1)
                    scores[:, 1, t, j, s] = (a[:, t] * decays * key[:, s]).sum(-1)
    return scores.flatten(3, 4).flatten(1, 2)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("log_decay", [None, 0.0, -1e-3, -8.0, -60.0, -math.inf])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_tiles_scores_are_the_definition(
    dtype: torch.dtype, tolerance: float, log_decay: float | None, late: bool
) -> None:
    inputs = make_inputs(log_decay, dtype)
    scores = scores_of(make_tiles(inputs, late=late))
    assert scores.dtype == dtype
    torch.testing.assert_close(scores.double(), definition(inputs, late=late), rtol=0, atol=tolerance)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("log_decay", [None, -20.0])
def test_tiles_tile_decays_queries_from_the_start_and_keys_to_the_end(log_decay: float | None, late: bool) -> None:
    inputs = make_inputs(log_decay)
    tile = make_tiles(inputs, late=late).tile(ALL)
    q, a, k, b, log_decays = (in_chunks(x, C).flatten(0, 2) for x in inputs)
    w = log_decays.exp()
    for t in range(C):
        for actual, x, decays in (
            (tile.q_LQK[:, t], q, w[:, : t + 1]),
            (tile.q_LQK[:, C + t], a, w[:, : t + late]),
            (tile.k_LPK[:, t], k, w[:, t + 1 :]),
            (tile.k_LPK[:, C + t], b, w[:, t + 1 :]),
        ):
            torch.testing.assert_close(actual, x[:, t] * decays.prod(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(tile.kept_LK1, w.prod(1)[..., None], rtol=0, atol=1e-12)


def test_tiles_tile_is_wide_only_after_strong_decays() -> None:
    for share, dtype in ((0.99, torch.float32), (1.01, torch.float64)):
        inputs = make_inputs(share * math.log(SMALLEST_FACTOR) / C, torch.float32)
        tile = make_tiles(inputs).tile(ALL)
        assert tile.since_LFK.dtype == tile.wide_q_LQK.dtype == tile.wide_k_LPK.dtype == dtype
        assert tile.q_LQK.dtype == tile.k_LPK.dtype == tile.kept_LK1.dtype == torch.float32


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("log_decay", [None, -1e-3, -20.0])
def test_tiles_gradients_are_those_of_the_scores(log_decay: float | None, late: bool) -> None:
    leaves = [x.requires_grad_() for x in make_inputs(log_decay)]
    weights = torch.randn(N * B * H, 2 * C, 2 * C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.autograd.grad((definition(leaves, late=late) * weights).sum(), leaves)
    inputs = [x.detach() for x in leaves]
    tiles = make_tiles(inputs, late=late)
    tile = tiles.tile(ALL)
    grad_scores = weights * tiles.visible_QP
    grad_q, grad_k = grad_scores @ tile.wide_k_LPK, grad_scores.mT @ tile.wide_q_LQK
    grads = [torch.empty_like(x) for x in inputs]
    q, a, k, b, log_decays = (in_chunks(x, C) for x in grads)
    tiles.gradients(ALL, tile, grad_q, grad_k, torch.zeros(B * H, K).double(), ([q, a], [k, b], [log_decays]))
    for actual, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(actual, want, rtol=0, atol=1e-10)


def test_tiles_gradients_of_log_decays_take_part_in_the_memory_after_the_tile() -> None:
    inputs = make_inputs()
    tiles, end = make_tiles(inputs), torch.randn(B * H, K, generator=torch.Generator().manual_seed(2)).double()
    tile, grad = tiles.tile(ALL), torch.empty_like(inputs[-1])
    zeros = torch.zeros_like(tile.wide_q_LQK)
    rest = [in_chunks(torch.empty_like(x), C) for x in inputs[:4]]
    tiles.gradients(ALL, tile, zeros, zeros.clone(), end, (rest[:2], rest[2:], [in_chunks(grad, C)]))
    torch.testing.assert_close(grad, end.view(B, 1, H, K).expand_as(grad))


def test_tiles_paste_is_the_reverse_of_cut() -> None:
    inputs = make_inputs()
    tiles, copies = make_tiles(inputs), [torch.zeros_like(x) for x in inputs[:2]]
    parts = [in_chunks(x, C) for x in inputs[:2]]
    for n in (slice(0, 1), slice(1, 2)):
        both = tiles.cut(n, parts)
        assert torch.equal(tiles.cut(n, parts[:1], room=1)[:, :C], both[:, :C])
        tiles.paste(n, both, [in_chunks(x, C) for x in copies])
    assert all(torch.equal(x, y) for x, y in zip(copies, inputs[:2], strict=True))
