"""A matrix memory with a decay for each key channel, in chunks: what gated linear attention and delta rules share.

For every batch row and head, with vectors as rows and a memory S that is a matrix (K, V),

    S_t = diag(w_t) S_{t-1} + k_t^T v_t + b_t^T u_t        u_t = a_t S_{t-1}
    y_t = q_t S_t

Without a and b the last term is absent. With a alone, b is k. If `a_reads_decayed`, u_t = a_t diag(w_t) S_{t-1}.

Let S be the memory before a chunk, and G_t the sum of log w from the chunk's start to t. With the queries q_t exp(G_t)
and a_t exp(G_{t-1}) and the keys k_t exp(-G_t) and b_t exp(-G_t), nothing decays within the chunk. Let Q, A, K and B be
these vectors, QK and QB the lower triangles of the products of queries and keys, AK and AB the triangles strictly
below the diagonal:

    (I - AB) U = A S + AK V
    Y = Q S + QK V + QB U
    next S = exp(G_C) (S + K^T V + B^T U)

So U is A' S + T, with A' = (I - AB)^-1 A and T = (I - AB)^-1 AK V, which are computed for all chunks together. With
b = k, all values V + U are written under k, and AK V is V.

exp(G_t) is a product of decays. If its reciprocal would be too large, which takes strong decays, the queries and keys
of the tile are float64, and a decay below the rounding error counts as the rounding error. Every matrix product with
the memory has keys times exp(G_C), which are not large.

The operator saves only the memories at the boundaries of the chunks; the backward pass computes the tiles again, from
the last to the first. G_t enters as a factor of q_t and a_{t+1} and as a divisor of k_t and b_t, so its gradient is
q_t dq_t + a_{t+1} da_{t+1} - k_t dk_t - b_t db_t, and the gradient of log w_t is the sum of the gradients of G_t and of
all later G. Everything after a tile depends on the tile's decays only through the memory S at its end, so this sum
starts anew in each tile, with S dS summed over the value axis: rounding errors of long sequences do not add up.

Legend: B batch, T time, H heads, K key width, V value width; N chunks of C positions, M = B * H, L = N * M in a tile;
Q positions of q and then of a, P positions of k and then of b in a chunk, F = C + 1 positions, from the one before the
chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.chunks import in_chunks, padded, steps, tiles
from lmzoo.ops.operator import operator

CHUNK_LENGTH = 16  # longer chunks need more work for the scores, shorter ones more memories
SMALLEST_FACTOR = 1e-20  # of a query; its reciprocal is a factor of a key, and far from infinite


def decayed_memory(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    state_BHKV: Tensor,
    a_BTHK: Tensor | None = None,
    b_BTHK: Tensor | None = None,
    *,
    a_reads_decayed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns `y_BTHV` and the last memory; all tensors have the same dtype, float32 or float64."""
    T = q_BTHK.shape[1]
    C = min(CHUNK_LENGTH, T)
    inputs = (None if x is None else padded(x, C) for x in (q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK))
    with torch.autocast(q_BTHK.device.type, enabled=False):  # autocast would compute the products in its own dtype
        y_BTHV, last_BHKV, _ = torch.ops.lmzoo.decayed_memory(*inputs, state_BHKV, C, a_reads_decayed)
    return y_BTHV[:, :T], last_BHKV


class _Tile(NamedTuple):
    """Queries and keys with their decays, and the scores, of several chunks: they do not depend on the memory."""

    since_LFK: Tensor  # exp(G)
    inverse_since_LCK: Tensor  # exp(-G)
    wide_q_LQK: Tensor  # times exp(G)
    wide_k_LPK: Tensor  # times exp(-G)
    q_LQK: Tensor
    k_LPK: Tensor  # times exp(G_C - G)
    kept_LK1: Tensor  # exp(G_C)
    scores_LQP: Tensor
    inverse_LCC: Tensor | None  # of the system I - AB
    solved_a_LCK: Tensor | None  # A'


class _Chunks:
    """The inputs of the operator, cut into chunks and tiles."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor | None, b: Tensor | None, C: int, late: bool
    ) -> None:
        (B, T, H, K), V = q.shape, v.shape[-1]
        self.C, self.dtype, self.lead = C, q.dtype, (B, H)
        self.v, self.log_decay = in_chunks(v, C), in_chunks(log_decay, C)
        self.queries = [in_chunks(x, C) for x in (q, a) if x is not None]
        self.keys = [in_chunks(x, C) for x in (k, b) if x is not None]
        self.rows = (slice(1, None), slice(1, None) if late else slice(0, -1))  # of the decays of q and a, in F
        self.tiles = tiles(T // C, B * H * C * max(K, V))
        visible_CC = torch.ones(C, C, dtype=q.dtype, device=q.device).tril()
        rows = (visible_CC, visible_CC.tril(-1))[: len(self.queries)]
        self.visible_QP = torch.cat(rows).repeat(1, len(self.keys))  # a does not see its own position

    def by_chunk(self, x_LXK: Tensor) -> Tensor:
        """Returns a view of a tile's tensor with the axes (N, B, H, X, K)."""
        return x_LXK.unflatten(0, (-1, *self.lead))

    def parts(self, x_LXK: Tensor) -> tuple[Tensor, ...]:
        """Returns views of the positions of q and of a, or of k and of b."""
        return x_LXK.split(self.C, dim=1)

    def cut(self, n: slice, xs: list[Tensor], dtype: torch.dtype, *, room: int = 0) -> Tensor:
        """Returns the chunks n of each of xs, one after another, and room for `room` more: (L, X, K or V)."""
        N, B, H, C, K = xs[0][n].shape
        out_LXK = xs[0].new_empty(N * B * H, C * (len(xs) + room), K, dtype=dtype)
        for x, part_LCK in zip(xs, self.parts(out_LXK), strict=False):
            self.by_chunk(part_LCK).copy_(x[n])
        return out_LXK

    def paste(self, n: slice, x_LXK: Tensor, outs: list[Tensor]) -> None:
        """Writes the chunks n of all outputs: the reverse of `cut`."""
        for part_LCK, out in zip(self.parts(x_LXK), outs, strict=True):
            out[n].copy_(self.by_chunk(part_LCK))

    def decay_queries(self, x_LQK: Tensor, since_LFK: Tensor) -> Tensor:
        """Multiplies queries by exp(G), in place."""
        for part_LCK, rows in zip(self.parts(x_LQK), self.rows, strict=False):
            part_LCK.mul_(since_LFK[:, rows])
        return x_LQK

    def decay_keys(self, x_LPK: Tensor, inverse_since_LCK: Tensor) -> Tensor:
        """Multiplies keys by exp(-G), in place."""
        for part_LCK in self.parts(x_LPK):
            part_LCK.mul_(inverse_since_LCK)
        return x_LPK

    def since(self, n: slice, dtype: torch.dtype) -> Tensor:
        """Returns exp(G), (L, F, K)."""
        N, B, H, C, K = self.log_decay[n].shape
        since_LFK = self.log_decay.new_empty(N * B * H, C + 1, K, dtype=dtype)
        since_LFK[:, 0] = 0.0
        self.by_chunk(since_LFK[:, 1:]).copy_(self.log_decay[n])
        since_LFK.exp_()
        if dtype == torch.float64:
            since_LFK.clamp_(min=torch.finfo(self.dtype).eps)
        since = since_LFK.unbind(1)
        for t in range(1, C):
            since[t + 1].mul_(since[t])
        return since_LFK

    def tile(self, n: slice) -> _Tile:
        """Computes the chunks n."""
        since_LFK = self.since(n, self.dtype)
        if not since_LFK[:, -1].amin() > SMALLEST_FACTOR:
            since_LFK = self.since(n, torch.float64)
        inverse_since_LCK = since_LFK[:, 1:].reciprocal()
        C, wide = self.C, since_LFK.dtype
        wide_q_LQK = self.decay_queries(self.cut(n, self.queries, wide), since_LFK)
        wide_k_LPK = self.decay_keys(self.cut(n, self.keys, wide), inverse_since_LCK)
        scores_LQP = torch.bmm(wide_q_LQK, wide_k_LPK.mT).mul_(self.visible_QP).to(self.dtype)
        q_LQK, k_LPK = wide_q_LQK.to(self.dtype), (wide_k_LPK * since_LFK[:, -1:]).to(self.dtype)
        kept_LK1 = since_LFK[:, -1, :, None].to(self.dtype)
        inverse_LCC, solved_a_LCK = None, None
        if len(self.queries) > 1:
            eye_CC = torch.eye(C, dtype=self.dtype, device=scores_LQP.device)
            system = -scores_LQP[:, C:, -C:]  # the diagonal is one by definition and is never read
            inverse_LCC = torch.linalg.solve_triangular(system, eye_CC, upper=False, unitriangular=True)
            solved_a_LCK = torch.bmm(inverse_LCC, q_LQK[:, C:])
        decays = (since_LFK, inverse_since_LCK, wide_q_LQK, wide_k_LPK, q_LQK, k_LPK, kept_LK1)
        return _Tile(*decays, scores_LQP, inverse_LCC, solved_a_LCK)

    def targets(self, tile: _Tile, v_LCV: Tensor) -> Tensor:
        """Returns the right-hand sides of the systems without the memory: AK V, or V if b is k."""
        C = self.C
        return v_LCV if len(self.keys) == 1 else torch.bmm(tile.scores_LQP[:, C:, :C], v_LCV)


# A custom operator: autograd would keep all tensors of all chunks, and torch.compile would unroll the loops.


@operator("decayed_memory")
def _forward(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
    state_BHKV: Tensor,
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `y_BTHV`, the last memory, and the memories at the boundaries of all chunks (N + 1, M, K, V)."""
    chunks = _Chunks(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK, C, a_reads_decayed)
    S_NMKV, y_BTHV = _room(state_BHKV, v_BTHV, C), v_BTHV.new_empty(v_BTHV.shape)
    S_NMKV[0] = state_BHKV.flatten(0, 1)
    ys = in_chunks(y_BTHV, C)
    for n in chunks.tiles:
        y_LCV = _forward_tile(chunks, n, S_NMKV[n.start : n.stop + 1])
        ys[n].copy_(chunks.by_chunk(y_LCV))
    return y_BTHV, S_NMKV[-1].reshape(state_BHKV.shape).clone(), S_NMKV


def _forward_tile(chunks: _Chunks, n: slice, S_NMKV: Tensor) -> Tensor:
    """Returns the outputs of the chunks n. Writes the memories after the first."""
    C, tile, N = chunks.C, chunks.tile(n), n.stop - n.start
    v_LCV = chunks.cut(n, [chunks.v], chunks.dtype)
    q_LCK, scores_LCP = tile.q_LQK[:, :C], tile.scores_LQP[:, :C]
    starts_LKV, ends_LKV = S_NMKV[:-1].flatten(0, 1), S_NMKV[1:].flatten(0, 1)
    kept, S = steps(tile.kept_LK1, N), S_NMKV.unbind(0)
    if tile.solved_a_LCK is None:
        torch.bmm(tile.k_LPK.mT, v_LCV, out=ends_LKV)
        for i in range(N):
            S[i + 1].addcmul_(kept[i], S[i])
        return torch.bmm(scores_LCP, v_LCV).baddbmm_(q_LCK, starts_LKV)
    u_LCV = torch.bmm(tile.inverse_LCC, chunks.targets(tile, v_LCV))
    has_b = len(chunks.keys) > 1
    if has_b:
        torch.bmm(tile.k_LPK[:, :C].mT, v_LCV, out=ends_LKV)
    a, b, u = steps(tile.solved_a_LCK, N), steps(tile.k_LPK[:, -C:].mT, N), steps(u_LCV, N)
    for i in range(N):
        u[i].baddbmm_(a[i], S[i])
        if has_b:
            S[i + 1].addcmul_(kept[i], S[i])
        else:
            torch.mul(kept[i], S[i], out=S[i + 1])
        S[i + 1].baddbmm_(b[i], u[i])
    y_LCV = torch.bmm(q_LCK, starts_LKV).baddbmm_(scores_LCP[:, :, -C:], u_LCV)
    return y_LCV.baddbmm_(scores_LCP[:, :, :C], v_LCV) if has_b else y_LCV


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
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (q, k, v, log_decay, a, b, state); those of missing a and b are empty."""
    inputs = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    chunks = _Chunks(*inputs, C, a_reads_decayed)
    gradients = _gradients(*inputs)
    q, k, v, log_decay, a, b = (x if x.ndim < 4 else in_chunks(x, C) for x in gradients)
    queries, keys, grad_y = [q, a][: len(chunks.queries)], [k, b][: len(chunks.keys)], in_chunks(grad_y_BTHV, C)
    grad_MKV = grad_last_BHKV.flatten(0, 1)
    for n in reversed(chunks.tiles):
        tile, memories_NMKV = chunks.tile(n), S_NMKV[n.start : n.stop + 1]
        end_MK = (memories_NMKV[-1] * grad_MKV).sum(-1)  # the gradient of G at the end of the tile
        q_LQK, k_LPK, v_LCV, grad_MKV = _backward_tile(chunks, tile, n, grad_y, memories_NMKV, grad_MKV)
        _grad_log_decay(chunks, tile, q_LQK, k_LPK, end_MK, log_decay[n])
        chunks.paste(n, chunks.decay_queries(q_LQK, tile.since_LFK), queries)
        chunks.paste(n, chunks.decay_keys(k_LPK, tile.inverse_since_LCK), keys)
        chunks.paste(n, v_LCV, [v])
    return *gradients, grad_MKV.reshape(grad_last_BHKV.shape).clone()


def _backward_tile(
    chunks: _Chunks, tile: _Tile, n: slice, grad_y: Tensor, S_NMKV: Tensor, grad_MKV: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of wide q (and a), wide k (and b), v and the first memory, from that of the last memory."""
    C, N, wide = chunks.C, n.stop - n.start, tile.since_LFK.dtype
    starts_LKV, grads_NMKV = S_NMKV[:-1].flatten(0, 1), S_NMKV.new_empty(S_NMKV.shape)
    grads_NMKV[-1] = grad_MKV
    grads_LKV, kept, grad_S = grads_NMKV[1:].flatten(0, 1), steps(tile.kept_LK1, N), grads_NMKV.unbind(0)
    v_LPV = chunks.cut(n, [chunks.v], chunks.dtype, room=len(chunks.keys) - 1)
    grads_LQV = chunks.cut(
        n, [grad_y], chunks.dtype, room=len(chunks.queries) - 1
    )  # dY and the gradients of the systems
    grad_y_LCV = grads_LQV[:, :C]
    torch.bmm(tile.q_LQK[:, :C].mT, grad_y_LCV, out=grads_NMKV[:-1].flatten(0, 1))
    if tile.solved_a_LCK is None or tile.inverse_LCC is None:
        for i in reversed(range(N)):
            grad_S[i].addcmul_(kept[i], grad_S[i + 1])
        grad_v_LCV = torch.bmm(tile.scores_LQP.mT, grad_y_LCV).baddbmm_(tile.k_LPK, grads_LKV)
    else:
        right_LCV = torch.baddbmm(chunks.targets(tile, v_LPV[:, :C]), tile.q_LQK[:, C:], starts_LKV)
        v_LPV[:, -C:] = torch.bmm(tile.inverse_LCC, right_LCV)
        grad_u_LCV = torch.bmm(tile.scores_LQP[:, :C, -C:].mT, grad_y_LCV)
        a, b, grad_u = steps(tile.solved_a_LCK.mT, N), steps(tile.k_LPK[:, -C:], N), steps(grad_u_LCV, N)
        for i in reversed(range(N)):
            grad_u[i].baddbmm_(b[i], grad_S[i + 1])
            grad_S[i].addcmul_(kept[i], grad_S[i + 1]).baddbmm_(a[i], grad_u[i])
        grad_v_LCV = torch.bmm(tile.inverse_LCC.mT, grad_u_LCV)
        grads_LQV[:, C:] = grad_v_LCV
        if len(chunks.keys) > 1:
            grad_v_LCV = torch.bmm(tile.scores_LQP[:, :, :C].mT, grads_LQV).baddbmm_(tile.k_LPK[:, :C], grads_LKV)
    grad_scores_LQP = torch.bmm(grads_LQV, v_LPV.mT).mul_(chunks.visible_QP).to(wide)
    grad_q_LQK = torch.bmm(grads_LQV, starts_LKV.mT).to(wide).baddbmm_(grad_scores_LQP, tile.wide_k_LPK)
    grad_k_LPK = torch.bmm(v_LPV, grads_LKV.mT).to(wide).mul_(tile.since_LFK[:, -1:])
    grad_k_LPK.baddbmm_(grad_scores_LQP.mT, tile.wide_q_LQK)
    return grad_q_LQK, grad_k_LPK, grad_v_LCV, grads_NMKV[0]


def _grad_log_decay(
    chunks: _Chunks, tile: _Tile, grad_q_LQK: Tensor, grad_k_LPK: Tensor, end_MK: Tensor, out_NBHCK: Tensor
) -> None:
    """Writes the gradients of the log decays of a tile, from those of wide queries, wide keys and G at its end."""
    grad_G_LFK = torch.empty_like(tile.since_LFK)
    grad_G_LFK[:, 0] = 0.0
    grads, xs = chunks.parts(grad_q_LQK), chunks.parts(tile.wide_q_LQK)
    torch.mul(grads[0], xs[0], out=grad_G_LFK[:, 1:])
    for grad_LCK, x_LCK in zip(grads[1:], xs[1:], strict=True):
        grad_G_LFK[:, chunks.rows[1]].addcmul_(grad_LCK, x_LCK)
    for grad_LCK, x_LCK in zip(chunks.parts(grad_k_LPK), chunks.parts(tile.wide_k_LPK), strict=True):
        grad_G_LFK[:, 1:].addcmul_(grad_LCK, x_LCK, value=-1)
    sums = grad_G_LFK.unbind(1)
    for t in reversed(range(chunks.C)):
        sums[t].add_(sums[t + 1])
    # The sums within each chunk lack the gradients of G from the later chunks and from the end of the tile.
    sums_NMFK = grad_G_LFK.unflatten(0, (-1, len(end_MK)))
    later_NMK = torch.cat((sums_NMFK[1:, :, 0], end_MK[None])).flip(0).cumsum(0).flip(0)
    sums_NBHFK, later_NBHK = (x.unflatten(1, chunks.lead) for x in (sums_NMFK, later_NMK))
    torch.add(sums_NBHFK[..., 1:, :], later_NBHK[..., None, :], out=out_NBHCK)


def _room(state_BHKV: Tensor, v_BTHV: Tensor, C: int) -> Tensor:
    """Returns room for the memories at the boundaries of all chunks, (N + 1, M, K, V)."""
    return state_BHKV.new_empty(v_BTHV.shape[1] // C + 1, *state_BHKV.flatten(0, 1).shape)


def _gradients(q_BTHK: Tensor, *others: Tensor | None) -> list[Tensor]:
    """Returns room for the gradient of each input, empty for a missing one: an operator cannot return None."""
    return [q_BTHK.new_empty(0 if x is None else x.shape) for x in (q_BTHK, *others)]


@torch.library.register_fake("lmzoo::decayed_memory")
def _forward_fake(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    a_BTHK: Tensor | None,
    b_BTHK: Tensor | None,
    state_BHKV: Tensor,
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return v_BTHV.new_empty(v_BTHV.shape), state_BHKV.new_empty(state_BHKV.shape), _room(state_BHKV, v_BTHV, C)


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
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, log_decay, a, b = _gradients(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    return q, k, v, log_decay, a, b, grad_last_BHKV.new_empty(grad_last_BHKV.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.C, ctx.a_reads_decayed = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved memories


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: with activation checkpointing each read would need its own recomputation
    _, k_BTHK, v_BTHV, _, a_BTHK, b_BTHK, _ = saved
    grad_y_BTHV = torch.zeros_like(v_BTHV) if grad_y is None else grad_y
    if grad_last is None:
        grad_last = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    settings = (ctx.C, ctx.a_reads_decayed)
    with torch.autocast(v_BTHV.device.type, enabled=False):
        *grads, grad_a, grad_b, grad_state = torch.ops.lmzoo.decayed_memory_backward(
            grad_y_BTHV, grad_last, *saved, *settings
        )
    optional = (None if a_BTHK is None else grad_a, None if b_BTHK is None else grad_b)
    return *grads, *optional, grad_state, None, None


torch.library.register_autograd("lmzoo::decayed_memory", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.decayed_memory)
def _forward_flops(
    q_shape: list[int],
    k_shape: list[int],
    v_shape: list[int],
    log_decay_shape: list[int],
    a_shape: list[int] | None,
    b_shape: list[int] | None,
    *_: object,
    **__: object,
) -> int:
    """Per token, head and entry of the memory: a multiply-add for each key and for each query."""
    B, T, H, K = q_shape
    return 2 * B * T * H * K * v_shape[-1] * (2 + (a_shape is not None) + (b_shape is not None))


@register_flop_formula(torch.ops.lmzoo.decayed_memory_backward)
def _backward_flops(grad_shape: list[int], last_shape: list[int], *shapes: Any, **_: object) -> int:
    """Twice the forward pass, the usual convention; what is computed again is not counted."""
    return 2 * _forward_flops(*shapes)
