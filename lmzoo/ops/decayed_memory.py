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

`lmzoo.ops.decayed_tiles` makes these vectors for a few chunks at a time, a tile, and `lmzoo.ops.decayed_passes` solves
the equations in it. The operator here goes over the tiles. It saves the memories at the boundaries of the chunks, the
scores and the inverses of I - AB; the backward pass computes the rest of a tile again, from the last tile to the first.

Legend: B batch, T time, H heads, K key width, V value width; N chunks of C positions, M = B * H; Q positions of q and
then of a, P positions of k and then of b in a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.chunks import in_chunks, padded
from lmzoo.ops.decayed_passes import backward_tile, forward_tile
from lmzoo.ops.decayed_tiles import Tiles
from lmzoo.ops.operator import gradient_room, operator
from lmzoo.ops.precision import without_autocast

CHUNK_LENGTH = 16  # longer chunks need more work for the scores, shorter ones more memories


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
    with without_autocast(q_BTHK):
        y_BTHV, last_BHKV, *_ = torch.ops.lmzoo.decayed_memory(*inputs, state_BHKV, C, a_reads_decayed)
    return y_BTHV[:, :T], last_BHKV


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns `y_BTHV`, the last memory, the memories at the boundaries of all chunks, the scores and the inverses."""
    tiles = _tiles(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK, C, a_reads_decayed)
    S_NMKV, scores_NMQP, inverse_NMCC = saved = _room(v_BTHV, a_BTHK, b_BTHK, state_BHKV, C)
    S_NMKV[0], y_BTHV = state_BHKV.flatten(0, 1), v_BTHV.new_empty(v_BTHV.shape)
    v, y = in_chunks(v_BTHV, C), in_chunks(y_BTHV, C)
    for n in tiles.slices:
        v_LCV, memories_NMKV = tiles.cut(n, [v]), S_NMKV[n.start : n.stop + 1]
        scores_LQP, inverse_LCC = scores_NMQP[n].flatten(0, 1), inverse_NMCC[n].flatten(0, 1)
        y_LCV = forward_tile(tiles, tiles.tile(n), v_LCV, memories_NMKV, scores_LQP, inverse_LCC)
        tiles.paste(n, y_LCV, [y])
    return y_BTHV, S_NMKV[-1].reshape(state_BHKV.shape).clone(), *saved


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
    scores_NMQP: Tensor,
    inverse_NMCC: Tensor,
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (q, k, v, log_decay, a, b, state); those of missing a and b are empty."""
    tiles = _tiles(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK, C, a_reads_decayed)
    q, k, v, log_decay, a, b = gradient_room(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    outs_q, outs_k, outs_log, outs_v = (
        [in_chunks(x, C) for x in xs if x.ndim == 4] for xs in ((q, a), (k, b), (log_decay,), (v,))
    )
    values, grad_y, grad_MKV = in_chunks(v_BTHV, C), in_chunks(grad_y_BTHV, C), grad_last_BHKV.flatten(0, 1)
    for n in reversed(tiles.slices):
        memories_NMKV, tile = S_NMKV[n.start : n.stop + 1], tiles.tile(n)
        end_MK = (memories_NMKV[-1] * grad_MKV).sum(-1)  # the gradient of G at the end of the tile
        v_LPV = tiles.cut(n, [values], room=len(tiles.keys) - 1)  # V, and room for U
        grads_LQV = tiles.cut(n, [grad_y], room=len(tiles.queries) - 1)  # dY, and room for Z
        saved = (memories_NMKV, scores_NMQP[n].flatten(0, 1), inverse_NMCC[n].flatten(0, 1))
        q_LQK, k_LPK, v_LCV, grad_MKV = backward_tile(tiles, tile, v_LPV, grads_LQV, grad_MKV, *saved)
        tiles.gradients(n, tile, q_LQK, k_LPK, end_MK, (outs_q, outs_k, outs_log))
        tiles.paste(n, v_LCV, outs_v)
    return q, k, v, log_decay, a, b, grad_MKV.reshape(grad_last_BHKV.shape).clone()


def _tiles(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, a: Tensor | None, b: Tensor | None, C: int, late: bool
) -> Tiles:
    """Returns the tiles of the inputs."""
    queries, keys = ([x for x in xs if x is not None] for xs in ((q, a), (k, b)))
    return Tiles(queries, keys, log_decay, C, max(q.shape[-1], v.shape[-1]), late=late)


def _room(
    v_BTHV: Tensor, a_BTHK: Tensor | None, b_BTHK: Tensor | None, state_BHKV: Tensor, C: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns room for the memories (N + 1, M, K, V), the scores (N, M, Q, P) and the inverses (N, M, C, C)."""
    N, (M, K, V), has_a, has_b = (
        v_BTHV.shape[1] // C,
        state_BHKV.flatten(0, 1).shape,
        a_BTHK is not None,
        b_BTHK is not None,
    )
    solved = C if has_a else 0
    shapes = ((N + 1, M, K, V), (N, M, C * (1 + has_a), C * (1 + has_b)), (N, M, solved, solved))
    memories, scores, inverses = (state_BHKV.new_empty(shape) for shape in shapes)
    return memories, scores, inverses


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    saved = _room(v_BTHV, a_BTHK, b_BTHK, state_BHKV, C)
    return v_BTHV.new_empty(v_BTHV.shape), state_BHKV.new_empty(state_BHKV.shape), *saved


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
    scores_NMQP: Tensor,
    inverse_NMCC: Tensor,
    C: int,
    a_reads_decayed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, log_decay, a, b = gradient_room(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, a_BTHK, b_BTHK)
    return q, k, v, log_decay, a, b, grad_last_BHKV.new_empty(grad_last_BHKV.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.C, ctx.a_reads_decayed = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved memories


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: with activation checkpointing each read would need its own recomputation
    k_BTHK, v_BTHV, _log_decay, a_BTHK, b_BTHK = saved[1:6]
    grad_y_BTHV = torch.zeros_like(v_BTHV) if grad_y is None else grad_y
    if grad_last is None:
        grad_last = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    settings = (ctx.C, ctx.a_reads_decayed)
    with without_autocast(v_BTHV):
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
