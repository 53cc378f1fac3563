"""The forward and the backward pass of the matrix memory with decays over one tile of chunks.

In a chunk (`lmzoo.ops.decayed_memory` has the names), (I - AB) U = A S + AK V. So U is A' S + T, with
A' = (I - AB)^-1 A and T = (I - AB)^-1 AK V, which are computed for all chunks together. With b = k, all values V + U
are written under k, and AK V is V. Without a, there is no system.

With Z = (I - AB)^-T dU, the gradients of the right-hand sides of the systems,

    dA = Z S^T + dAK K + dAB B        dAK = Z V^T        dAB = Z U^T

so the backward pass treats A as a second set of queries, whose outputs have the gradient Z.

Legend: K key width, V value width; N chunks of C positions, M rows times heads, L = N * M in a tile; Q positions of q
and then of a, P positions of k and then of b in a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.chunks import steps
from lmzoo.ops.decayed_tiles import Tile, Tiles


def forward_tile(
    tiles: Tiles, tile: Tile, v_LCV: Tensor, S_NMKV: Tensor, scores_LQP: Tensor, inverse_LCC: Tensor
) -> Tensor:
    """Returns the outputs of a tile. Writes the memories after the first, the scores and the inverses."""
    C, N, S = tiles.C, len(S_NMKV) - 1, S_NMKV.unbind(0)
    starts_LKV, ends_LKV, kept = S_NMKV[:-1].flatten(0, 1), S_NMKV[1:].flatten(0, 1), steps(tile.kept_LK1, N)
    tiles.scores(tile, scores_LQP)
    q_LCK, scores_LCP = tile.q_LQK[:, :C], scores_LQP[:, :C]
    if len(tiles.queries) == 1:
        torch.bmm(tile.k_LPK.mT, v_LCV, out=ends_LKV)
        for i in range(N):
            S[i + 1].addcmul_(kept[i], S[i])
        return torch.bmm(scores_LCP, v_LCV).baddbmm_(q_LCK, starts_LKV)
    eye_CC = torch.eye(C, dtype=v_LCV.dtype, device=v_LCV.device)
    system_LCC = -scores_LQP[:, C:, -C:]  # the diagonal is one by definition and is never read
    torch.linalg.solve_triangular(system_LCC, eye_CC, upper=False, unitriangular=True, out=inverse_LCC)
    u_LCV = torch.bmm(inverse_LCC, _targets(tiles, scores_LQP, v_LCV))
    if len(tiles.keys) == 1:
        ends_LKV.zero_()
    else:
        torch.bmm(tile.k_LPK[:, :C].mT, v_LCV, out=ends_LKV)
    solved_a_LCK = torch.bmm(inverse_LCC, tile.q_LQK[:, C:])
    a, b, u = steps(solved_a_LCK, N), steps(tile.k_LPK[:, -C:].mT, N), steps(u_LCV, N)
    for i in range(N):
        u[i].baddbmm_(a[i], S[i])
        S[i + 1].addcmul_(kept[i], S[i]).baddbmm_(b[i], u[i])
    y_LCV = torch.bmm(scores_LCP[:, :, -C:], u_LCV).baddbmm_(q_LCK, starts_LKV)
    return y_LCV if len(tiles.keys) == 1 else y_LCV.baddbmm_(scores_LCP[:, :, :C], v_LCV)


def backward_tile(
    tiles: Tiles,
    tile: Tile,
    v_LPV: Tensor,
    grads_LQV: Tensor,
    grad_MKV: Tensor,
    S_NMKV: Tensor,
    scores_LQP: Tensor,
    inverse_LCC: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of the wide queries and keys, of v and of the first memory, from that of the last memory.

    Writes U, or V + U if b is k, to the end of v_LPV, and Z to that of grads_LQV.
    """
    C, N, grads_NMKV = tiles.C, len(S_NMKV) - 1, S_NMKV.new_empty(S_NMKV.shape)
    grads_NMKV[-1] = grad_MKV
    starts_LKV, grads_LKV, grad_S = S_NMKV[:-1].flatten(0, 1), grads_NMKV[1:].flatten(0, 1), grads_NMKV.unbind(0)
    kept, grad_y_LCV, q_LCK = steps(tile.kept_LK1, N), grads_LQV[:, :C], tile.q_LQK[:, :C]
    torch.bmm(q_LCK.mT, grad_y_LCV, out=grads_NMKV[:-1].flatten(0, 1))
    grad_u_LCV = torch.bmm(scores_LQP[:, :C, -C:].mT, grad_y_LCV)  # of V, if there is no a
    if len(tiles.queries) == 1:
        for i in reversed(range(N)):
            grad_S[i].addcmul_(kept[i], grad_S[i + 1])
        grad_v_LCV = grad_u_LCV.baddbmm_(tile.k_LPK, grads_LKV)
    else:
        a_LCK = tile.q_LQK[:, C:]
        right_LCV = torch.baddbmm(_targets(tiles, scores_LQP, v_LPV[:, :C]), a_LCK, starts_LKV)
        v_LPV[:, -C:] = torch.bmm(inverse_LCC, right_LCV)
        solved_a_LCK = torch.bmm(inverse_LCC, a_LCK)
        a, b, grad_u = steps(solved_a_LCK.mT, N), steps(tile.k_LPK[:, -C:], N), steps(grad_u_LCV, N)
        for i in reversed(range(N)):
            grad_u[i].baddbmm_(b[i], grad_S[i + 1])
            grad_S[i].addcmul_(kept[i], grad_S[i + 1]).baddbmm_(a[i], grad_u[i])
        grad_v_LCV = grads_LQV[:, C:] = torch.bmm(inverse_LCC.mT, grad_u_LCV)
        if len(tiles.keys) > 1:
            grad_v_LCV = torch.bmm(scores_LQP[:, :, :C].mT, grads_LQV).baddbmm_(tile.k_LPK[:, :C], grads_LKV)
    wide, end_L1K = tile.since_LFK.dtype, tile.since_LFK[:, -1:]
    grad_scores_LQP = torch.bmm(grads_LQV, v_LPV.mT).mul_(tiles.visible_QP).to(wide)
    grad_q_LQK = torch.bmm(grads_LQV, starts_LKV.mT).to(wide).baddbmm_(grad_scores_LQP, tile.wide_k_LPK)
    grad_k_LPK = torch.bmm(v_LPV, grads_LKV.mT).to(wide).mul_(end_L1K)
    grad_k_LPK.baddbmm_(grad_scores_LQP.mT, tile.wide_q_LQK)
    return grad_q_LQK, grad_k_LPK, grad_v_LCV, grads_NMKV[0]


def _targets(tiles: Tiles, scores_LQP: Tensor, v_LCV: Tensor) -> Tensor:
    """Returns the right-hand sides of the systems without the memory: AK V, or V if b is k."""
    C = tiles.C
    return v_LCV if len(tiles.keys) == 1 else torch.bmm(scores_LQP[:, C:, :C], v_LCV)
