"""Tests the passes over one tile: memories, the systems that they solve, and the gradients, against autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.decayed_passes import backward_tile, forward_tile
from lmzoo.ops.decayed_tiles import Tiles
from tests.cases import each_case

H, N, C, K, V = 2, 3, 4, 3, 5  # one row
ROOM = (N, H)


def drawn(kind: str) -> tuple[Tiles, Tensor, Tensor]:
    """Returns the tiles of random queries, keys and decays, the values and the first memory."""
    draw = torch.Generator().manual_seed(len(kind))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, a, b = (normal(1, N * C, H, K) * 0.3 for _ in range(4))
    queries, keys = [q, a] if kind else [q], [k, b] if kind == "ab" else [k]
    tiles = Tiles(queries, keys, -normal(1, N * C, H, K).exp(), C, K, late=False)
    return tiles, normal(N * H, C, V), normal(H, K, V)


def forward(tiles: Tiles, v_LCV: Tensor, first_MKV: Tensor) -> tuple[Tensor, ...]:
    """Returns the outputs, the memories, the scores and the inverses of the tile that has all chunks."""
    S_NMKV = torch.full((N + 1, H, K, V), torch.nan, dtype=torch.float64)
    S_NMKV[0] = first_MKV
    rows, columns, solved = C * len(tiles.queries), C * len(tiles.keys), C * (len(tiles.queries) - 1)
    scores_LQP = torch.empty(N * H, rows, columns, dtype=torch.float64)
    inverse_LCC = torch.empty(N * H, solved, solved, dtype=torch.float64)
    y_LCV = forward_tile(tiles, tiles.tile(slice(0, N)), v_LCV, S_NMKV, scores_LQP, inverse_LCC)
    return y_LCV, S_NMKV, scores_LQP, inverse_LCC


@each_case("kind", ["", "a", "ab"])
def test_forward_tile_is_the_equations_of_a_chunk(kind: str) -> None:
    tiles, v_LCV, first_MKV = drawn(kind)
    y_LCV, S_NMKV, scores_LQP, inverse_LCC = forward(tiles, v_LCV, first_MKV)
    tile, starts_LKV = tiles.tile(slice(0, N)), S_NMKV[:-1].flatten(0, 1)
    written_LPV = v_LCV
    if kind:
        targets_LCV = v_LCV if kind == "a" else scores_LQP[:, C:, :C] @ v_LCV
        u_LCV = inverse_LCC @ (tile.q_LQK[:, C:] @ starts_LKV + targets_LCV)  # V + U if b is k
        below_LCC = scores_LQP[:, C:, -C:].tril(-1)
        torch.testing.assert_close(inverse_LCC @ (torch.eye(C, dtype=torch.float64) - below_LCC), eye_like(inverse_LCC))
        written_LPV = u_LCV if kind == "a" else torch.cat((v_LCV, u_LCV), dim=1)
    ends_LKV = tile.kept_LK1 * starts_LKV + tile.k_LPK.mT @ written_LPV
    torch.testing.assert_close(S_NMKV[1:].flatten(0, 1), ends_LKV)
    torch.testing.assert_close(y_LCV, tile.q_LQK[:, :C] @ starts_LKV + scores_LQP[:, :C] @ written_LPV)


def eye_like(x_LCC: Tensor) -> Tensor:
    """Returns unit matrices of the shape of x."""
    return torch.eye(x_LCC.shape[-1], dtype=x_LCC.dtype).expand_as(x_LCC)


@each_case("kind", ["", "a", "ab"])
def test_backward_tile_has_the_gradients_of_finite_differences(kind: str) -> None:
    tiles, v_LCV, first_MKV = drawn(kind)
    _, S_NMKV, scores_LQP, inverse_LCC = forward(tiles, v_LCV, first_MKV)
    draw = torch.Generator().manual_seed(9)
    grad_y_LCV = torch.randn(v_LCV.shape, generator=draw, dtype=torch.float64)
    grad_MKV = torch.randn(first_MKV.shape, generator=draw, dtype=torch.float64)

    def loss(v: Tensor, first: Tensor) -> float:
        y, S, *_ = forward(tiles, v, first)
        return float((y * grad_y_LCV).sum() + (S[-1] * grad_MKV).sum())

    room = v_LCV.new_zeros(N * H, C, V)
    v_LPV = torch.cat([v_LCV, *[room] * (len(tiles.keys) - 1)], dim=1)
    grads_LQV = torch.cat([grad_y_LCV, *[room] * (len(tiles.queries) - 1)], dim=1)
    saved = (S_NMKV, scores_LQP, inverse_LCC)
    *_, grad_v_LCV, grad_first_MKV = backward_tile(tiles, tiles.tile(slice(0, N)), v_LPV, grads_LQV, grad_MKV, *saved)
    step_v, step_first = (torch.randn(x.shape, generator=draw, dtype=torch.float64) for x in (v_LCV, first_MKV))
    # Both are linear in the values and the memory, so a long step has no error but rounding.
    actual = float((grad_v_LCV * step_v).sum()), float((grad_first_MKV * step_first).sum())
    before = loss(v_LCV, first_MKV)
    expected = loss(v_LCV + step_v, first_MKV) - before, loss(v_LCV, first_MKV + step_first) - before
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
