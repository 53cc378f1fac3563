"""A matrix memory with a decay for each key channel, in chunks: what gated linear attention and delta rules share.

For every batch row and head, with vectors as rows and a memory S that is a matrix (K, V),

    S_t = diag(w_t) S_{t-1} + k_t^T v_t + b_t^T u_t        u_t = a_t S_{t-1}
    y_t = q_t S_t

Without a and b the last term is absent. With a alone, b is k. Let S be the memory before a chunk, and G_t the sum of
log w from the chunk's start to t. Each memory of the chunk is a sum of decayed outer products, so with the scores
QK_ts = sum over channels of q_t k_s exp(G_t - G_s) for s <= t, AB_ts = sum over channels of a_t b_s exp(G_{t-1} - G_s)
for s < t, and QB and AK in the same way,

    (I - AB) U = (A exp G_{t-1}) S + AK V
    Y = (Q exp G_t) S + QK V + QB U
    next S = exp(G_C) S + (K exp(G_C - G))^T V + (B exp(G_C - G))^T U

With b = k, all values V + U are written under k: (I - AB) (V + U) = (A exp G_{t-1}) S + V. The system does not contain
S: its inverse is computed for all chunks together.

The products exp(G_t - G_s) are at most one, but are computed as exp(G_t - m) exp(m - G_s), where m is G in the middle
of the chunk: so one matrix product makes all scores. For this, a decay below the rounding error counts as the rounding
error. The two factors are then inverse to each other up to rounding, and within the range of float32 for chunks of
`CHUNK_LENGTH` positions. The exponents are float64 numbers.

The operator works on tiles of a few chunks. It saves only the memories at the boundaries of the chunks; the backward
pass computes the tiles again, from the last to the first. G_t enters as a factor of q_t and a_{t+1} and as a divisor of
k_t and b_t, so its gradient is q_t dq_t + a_{t+1} da_{t+1} - k_t dk_t - b_t db_t, and the gradient of log w_t is the
sum of the gradients of G_t and of all later G. Everything after a tile depends on the tile's decays only through the
memory S at its end, so this sum starts anew in each tile, with S dS summed over the value axis: rounding errors of long
sequences do not add up.

Legend: B batch, T time, H heads, K key width, V value width; N chunks of C positions, M = B * H, L = N * M in a tile;
Q positions of q and then of a, P positions of k and then of b in a chunk, X either of them, F = C + 1 positions, from
the one before the chunk.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.operator import operator

CHUNK_LENGTH = 8  # exp(CHUNK_LENGTH / 2 * 16), for decays of the rounding error, is far below the largest float32
TILE = 1 << 18  # numbers in a tensor of a tile: less fits better into the cache, but takes more calls


def decayed_memory(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    a_BTHK: Tensor | None = None,
    b_BTHK: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns `y_BTHV` and the last memory; all tensors have the same dtype, float32 or float64."""
    T = q_BTHK.shape[1]
    q, k, v, log_decay = (_padded(x) for x in (q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK))
    a, b = (None if x is None else _padded(x) for x in (a_BTHK, b_BTHK))
    with torch.autocast(q_BTHK.device.type, enabled=False):  # autocast would compute the products in its own dtype
        y_BTHV, last_BHKV, _ = torch.ops.lmzoo.decayed_memory(q, k, v, log_decay, state_BHKV, a, b)
    return y_BTHV[:, :T], last_BHKV


def _padded(x_BTHK: Tensor) -> Tensor:
    """Adds zeros up to a whole chunk: a key of zero and a decay of one leave the memory as it is."""
    missing = -x_BTHK.shape[1] % CHUNK_LENGTH
    return F.pad(x_BTHK, (0, 0, 0, 0, 0, missing)) if missing else x_BTHK


class _Tile(NamedTuple):
    """Queries and keys with their decays, and the scores, of several chunks: they do not depend on the memory."""

    q_LQK: Tensor
    k_LPK: Tensor
    v_LPV: Tensor  # v and then room for u; with a alone v, later replaced by v + u
    near_q_LQK: Tensor  # times exp(G), the decays since the chunk's start
    near_k_LPK: Tensor  # times exp(G_C - G), the decays to the chunk's end
    far_q_LQK: Tensor  # times exp(G - m)
    far_k_LPK: Tensor  # times exp(m - G)
    grow_LFK: Tensor  # exp(G - m)
    shrink_LFK: Tensor  # exp(m - G)
    kept_LK1: Tensor  # exp(G) of the last position
    scores_LQP: Tensor
    inverse_LCC: Tensor | None  # of the system


class _Chunks:
    """The inputs of the operator, cut into tiles."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor | None, b: Tensor | None) -> None:
        self.queries = (q,) if a is None else (q, a)
        self.keys = (k,) if b is None else (k, b)
        self.v, self.log_decay = v, log_decay
        (self.B, T, self.H, K), V, C = q.shape, v.shape[-1], CHUNK_LENGTH
        size = max(1, TILE // (self.B * self.H * C * max(K, V)))
        self.tiles = [slice(n, min(n + size, T // C)) for n in range(0, T // C, size)]
        position_C = torch.arange(C, device=q.device)
        before_FC = torch.arange(C + 1, device=q.device)[:, None] > position_C
        self.sums_FC = before_FC.double() - (position_C < C // 2).double()  # times the logs of the decays: G - m
        hidden = (position_C[:, None] < position_C, position_C[:, None] <= position_C)  # from q, from a
        self.hidden_QP = torch.cat(hidden[: len(self.queries)]).repeat(1, len(self.keys))
        self.eye_CC = torch.eye(C, dtype=q.dtype, device=q.device)

    def cut(self, n: slice, xs: tuple[Tensor, ...], *, room: int = 0) -> Tensor:
        """Returns the chunks n of each of xs, one after another, and room for more: (L, X, K or V)."""
        C, L = CHUNK_LENGTH, (n.stop - n.start) * self.B * self.H
        out_LXK = xs[0].new_empty(L, C * (len(xs) + room), xs[0].shape[-1])
        for i, x in enumerate(xs):
            part = x.unflatten(1, (-1, C))[:, n].permute(1, 0, 3, 2, 4)
            out_LXK[:, i * C : (i + 1) * C].unflatten(0, (-1, self.B, self.H)).copy_(part)
        return out_LXK

    def paste(self, n: slice, x_LXK: Tensor, outs: tuple[Tensor, ...]) -> None:
        """Writes the chunks n of all outputs: the reverse of `cut`."""
        for x_LCK, out in zip(x_LXK.split(CHUNK_LENGTH, dim=1), outs, strict=True):
            part = x_LCK.unflatten(0, (-1, self.B, self.H)).permute(1, 0, 3, 2, 4)
            out.unflatten(1, (-1, CHUNK_LENGTH))[:, n].copy_(part)

    def tile(self, n: slice) -> _Tile:
        """Computes the chunks n."""
        C, v_LPV = CHUNK_LENGTH, self.cut(n, (self.v,), room=len(self.keys) - 1)
        q_LQK, k_LPK = self.cut(n, self.queries), self.cut(n, self.keys)
        log_LCK = self.cut(n, (self.log_decay,)).clamp_(min=math.log(torch.finfo(q_LQK.dtype).eps))
        grow_LFK = (self.sums_FC @ log_LCK.double()).exp_().to(q_LQK.dtype)
        shrink_LFK = grow_LFK.reciprocal()
        far_q_LQK, far_k_LPK = torch.empty_like(q_LQK), torch.empty_like(k_LPK)
        _decay_queries(q_LQK, grow_LFK, far_q_LQK)
        _decay_keys(k_LPK, shrink_LFK, far_k_LPK)
        # Products of queries with later keys can overflow: they are replaced, a mask of factors 0 would give NaN.
        scores_LQP = (far_q_LQK @ far_k_LPK.mT).masked_fill_(self.hidden_QP, 0.0)
        inverse_LCC = None
        if len(self.queries) > 1:
            system = -scores_LQP[:, C:, -C:]  # the diagonal is one by definition and is never read
            inverse_LCC = torch.linalg.solve_triangular(system, self.eye_CC, upper=False, unitriangular=True)
        near_q_LQK, near_k_LPK = far_q_LQK * shrink_LFK[:, :1], far_k_LPK * grow_LFK[:, -1:]
        kept_LK1 = (grow_LFK[:, -1] * shrink_LFK[:, 0])[..., None]
        decayed = (near_q_LQK, near_k_LPK, far_q_LQK, far_k_LPK, grow_LFK, shrink_LFK, kept_LK1)
        return _Tile(q_LQK, k_LPK, v_LPV, *decayed, scores_LQP, inverse_LCC)

    def targets(self, tile: _Tile) -> Tensor:
        """Returns the right-hand sides of the systems without the memory: AK V, or V if b is k."""
        C, v_LCV = CHUNK_LENGTH, tile.v_LPV[:, :CHUNK_LENGTH]
        return v_LCV if len(self.keys) == 1 else tile.scores_LQP[:, C:, :C] @ v_LCV


def _decay_queries(x_LQK: Tensor, grow_LFK: Tensor, out_LQK: Tensor) -> None:
    """Multiplies q by exp(G - m) at its position, and a by exp(G - m) at the position before."""
    C = CHUNK_LENGTH
    torch.mul(x_LQK[:, :C], grow_LFK[:, 1:], out=out_LQK[:, :C])
    if x_LQK.shape[1] > C:
        torch.mul(x_LQK[:, C:], grow_LFK[:, :-1], out=out_LQK[:, C:])


def _decay_keys(x_LPK: Tensor, shrink_LFK: Tensor, out_LPK: Tensor) -> None:
    """Multiplies k and b by exp(m - G) at their position."""
    parts = zip(x_LPK.split(CHUNK_LENGTH, dim=1), out_LPK.split(CHUNK_LENGTH, dim=1), strict=True)
    for x_LCK, out_LCK in parts:
        torch.mul(x_LCK, shrink_LFK[:, 1:], out=out_LCK)


# A custom operator: autograd would keep all tensors of all chunks, and torch.compile would unroll the loops.


@operator("decayed_memory")
def _forward(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `y_BTHV`, the last memory, and the memories at the boundaries of all chunks (N + 1, M, K, V)."""
    C, chunks = CHUNK_LENGTH, _Chunks(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    S_NMKV = _empty_memories(q_BTHK, state_BHKV)
    S_NMKV[0], y_BTHV = state_BHKV.flatten(0, 1), v_BTHV.new_empty(v_BTHV.shape)
    for n in chunks.tiles:
        tile = chunks.tile(n)
        v_LPV, N, memories = tile.v_LPV, n.stop - n.start, S_NMKV[n.start : n.stop + 1].unbind(0)
        kept = tile.kept_LK1.chunk(N)
        if tile.inverse_LCC is None:
            written = (tile.near_k_LPK.mT @ v_LPV).chunk(N)
            for i in range(N):
                torch.addcmul(written[i], kept[i], memories[i], out=memories[i + 1])
        else:
            targets, inverses = chunks.targets(tile).chunk(N), tile.inverse_LCC.chunk(N)
            keys, values, a = (x.chunk(N) for x in (tile.near_k_LPK.mT, v_LPV, tile.near_q_LQK[:, C:]))
            for i in range(N):
                values[i][:, -C:] = inverses[i] @ torch.baddbmm(targets[i], a[i], memories[i])
                torch.mul(kept[i], memories[i], out=memories[i + 1]).baddbmm_(keys[i], values[i])
        y_LCV = (tile.scores_LQP[:, :C] @ v_LPV).baddbmm_(tile.near_q_LQK[:, :C], S_NMKV[n].flatten(0, 1))
        chunks.paste(n, y_LCV, (y_BTHV,))
    return y_BTHV, S_NMKV[-1].reshape(state_BHKV.shape).clone(), S_NMKV


@operator("decayed_memory_backward")
def _backward_pass(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
    S_NMKV: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (q, k, v, log_decay, state, a, b); those of missing a and b are empty."""
    C, chunks = CHUNK_LENGTH, _Chunks(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    grad_q, grad_k, grad_v, grad_log, grad_a, grad_b = _empty_gradients(
        q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK
    )
    later_CC = torch.ones_like(chunks.eye_CC).triu()
    grad_MKV = grad_last_BHKV.flatten(0, 1)
    for n in reversed(chunks.tiles):
        tile = chunks.tile(n)
        v_LPV, starts_LKV, N = tile.v_LPV, S_NMKV[n].flatten(0, 1), n.stop - n.start
        grad_G_MK = (S_NMKV[n.stop] * grad_MKV).sum(-1)  # of G at the end of the tile
        # The gradients of Y, and room for the gradients of the right-hand sides of the systems.
        grads_LQV = chunks.cut(n, (grad_y_BTHV,), room=len(chunks.queries) - 1)
        grad_v_LPV = tile.scores_LQP[:, :C].mT @ grads_LQV[:, :C]
        read = (tile.near_q_LQK[:, :C].mT @ grads_LQV[:, :C]).chunk(N)
        grads_NMKV = grad_MKV.new_empty(N + 1, *grad_MKV.shape)  # of the memories at the boundaries
        grads_NMKV[N] = grad_MKV
        grads_LKV, grad_S = grads_NMKV[1:].flatten(0, 1), grads_NMKV.unbind(0)
        kept, grads = tile.kept_LK1.chunk(N), grads_LQV.chunk(N)
        if tile.inverse_LCC is None:
            for i in reversed(range(N)):
                torch.addcmul(read[i], kept[i], grad_S[i + 1], out=grad_S[i])
            grad_v_LCV = grad_v_LPV.baddbmm_(tile.near_k_LPK, grads_LKV)
        else:
            right_LCV = torch.baddbmm(chunks.targets(tile), tile.near_q_LQK[:, C:], starts_LKV)
            v_LPV[:, -C:] = tile.inverse_LCC @ right_LCV
            keys, grads_v = tile.near_k_LPK.chunk(N), grad_v_LPV.chunk(N)
            a, inverses = (x.mT.chunk(N) for x in (tile.near_q_LQK[:, C:], tile.inverse_LCC))
            for i in reversed(range(N)):
                grads_v[i].baddbmm_(keys[i], grad_S[i + 1])
                grads[i][:, C:] = inverses[i] @ grads_v[i][:, -C:]
                torch.addcmul(read[i], kept[i], grad_S[i + 1], out=grad_S[i]).baddbmm_(a[i], grads[i][:, C:])
            grad_v_LCV = grads_LQV[:, C:]
            if b_BTHK is not None:
                grad_v_LCV = grad_v_LPV[:, :C] + tile.scores_LQP[:, C:, :C].mT @ grad_v_LCV
        chunks.paste(n, grad_v_LCV, (grad_v,))
        grad_scores_LQP = (grads_LQV @ v_LPV.mT).masked_fill_(chunks.hidden_QP, 0.0)
        grad_q_LQK = (grads_LQV @ starts_LKV.mT).mul_(tile.shrink_LFK[:, :1])
        grad_k_LPK = (v_LPV @ grads_LKV.mT).mul_(tile.grow_LFK[:, -1:])
        grad_q_LQK.baddbmm_(grad_scores_LQP, tile.far_k_LPK)
        grad_k_LPK.baddbmm_(grad_scores_LQP.mT, tile.far_q_LQK)
        _decay_queries(grad_q_LQK, tile.grow_LFK, grad_q_LQK)
        _decay_keys(grad_k_LPK, tile.shrink_LFK, grad_k_LPK)
        chunks.paste(n, grad_q_LQK, (grad_q,) if a_BTHK is None else (grad_q, grad_a))
        chunks.paste(n, grad_k_LPK, (grad_k,) if b_BTHK is None else (grad_k, grad_b))
        # The gradients are written: from here on these are q dq and k dk, of which the gradients of G consist.
        grad_q_LQK.mul_(tile.q_LQK)
        grad_k_LPK.mul_(tile.k_LPK)
        grad_G_LFK = torch.zeros_like(tile.grow_LFK)
        grad_G_LFK[:, 1:] = grad_q_LQK[:, :C]
        for x_LCK in grad_k_LPK.split(C, dim=1):
            grad_G_LFK[:, 1:] -= x_LCK
        if a_BTHK is not None:
            grad_G_LFK[:, :-1] += grad_q_LQK[:, C:]
        grad_log_LCK = later_CC @ grad_G_LFK[:, 1:]
        # The sums within each chunk lack the gradients of G from the later chunks and from the end of the tile.
        for log_MCK, grad_MFK in zip(reversed(grad_log_LCK.chunk(N)), reversed(grad_G_LFK.chunk(N)), strict=True):
            log_MCK.add_(grad_G_MK[:, None])
            grad_G_MK = log_MCK[:, 0] + grad_MFK[:, 0]
        chunks.paste(n, grad_log_LCK, (grad_log,))
        grad_MKV = grad_S[0]
    return grad_q, grad_k, grad_v, grad_log, grad_MKV.reshape(grad_last_BHKV.shape).clone(), grad_a, grad_b


def _empty_memories(q_BTHK: Tensor, state_BHKV: Tensor) -> Tensor:
    """Returns room for the memories at the boundaries of all chunks, (N + 1, M, K, V)."""
    return state_BHKV.new_empty(q_BTHK.shape[1] // CHUNK_LENGTH + 1, *state_BHKV.flatten(0, 1).shape)


def _empty_gradients(q_BTHK: Tensor, *others: Tensor | None) -> list[Tensor]:
    """Returns room for the gradient of each input, empty for a missing one: an operator cannot return None."""
    return [q_BTHK.new_empty(0 if x is None else x.shape) for x in (q_BTHK, *others)]


@torch.library.register_fake("lmzoo::decayed_memory")
def _forward_fake(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return v_BTHV.new_empty(v_BTHV.shape), state_BHKV.new_empty(state_BHKV.shape), _empty_memories(q_BTHK, state_BHKV)


@torch.library.register_fake("lmzoo::decayed_memory_backward")
def _backward_fake(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
    S_NMKV: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, log_decay, a, b = _empty_gradients(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    return q, k, v, log_decay, grad_last_BHKV.new_empty(grad_last_BHKV.shape), a, b


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, _, a_BTHK, b_BTHK = inputs
    ctx.save_for_backward(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK, output[2])
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved memories


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: with activation checkpointing each read would need its own recomputation
    _, k_BTHK, v_BTHV, _, a_BTHK, b_BTHK, _ = saved
    grad_y_BTHV = torch.zeros_like(v_BTHV) if grad_y is None else grad_y
    if grad_last is None:
        grad_last = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    with torch.autocast(v_BTHV.device.type, enabled=False):
        *grads, grad_a, grad_b = torch.ops.lmzoo.decayed_memory_backward(grad_y_BTHV, grad_last, *saved)
    return *grads, None if a_BTHK is None else grad_a, None if b_BTHK is None else grad_b


torch.library.register_autograd("lmzoo::decayed_memory", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.decayed_memory)
def _forward_flops(
    q_shape: list[int],
    k_shape: list[int],
    v_shape: list[int],
    log_decay_shape: list[int],
    state_shape: list[int],
    a_shape: list[int] | None,
    b_shape: list[int] | None,
    **_: object,
) -> int:
    """Per token, head and entry of the memory: a multiply-add for each key and for each query."""
    B, T, H, K = q_shape
    return 2 * B * T * H * K * v_shape[-1] * (2 + (a_shape is not None) + (b_shape is not None))


@register_flop_formula(torch.ops.lmzoo.decayed_memory_backward)
def _backward_flops(
    grad_shape: list[int],
    last_shape: list[int],
    q_shape: list[int],
    k_shape: list[int],
    v_shape: list[int],
    log_decay_shape: list[int],
    a_shape: list[int] | None,
    b_shape: list[int] | None,
    *_: object,
    **__: object,
) -> int:
    """Twice the forward pass, the usual convention; what is computed again is not counted."""
    return 2 * _forward_flops(q_shape, k_shape, v_shape, log_decay_shape, last_shape, a_shape, b_shape)
