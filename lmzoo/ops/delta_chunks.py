"""The delta rule in chunks, without decays or with one decay for each head and position, in one operator.

For every batch row and head, with vectors as rows, a decay w_t and a memory S that is a matrix (K, V),

    u_t = v_t - w_t k_t S_{t-1}
    S_t = w_t S_{t-1} + beta_t k_t^T u_t
    y_t = q_t S_t

Let S be the memory before a chunk of C positions, and, as in `lmzoo.ops.decayed_scores`, `since_t` = w_1 ... w_t,
`until_s` = w_{s+1} ... w_C, and the scores of queries or keys with keys times the decays between them, here also times
the betas of the keys: QK_ts = (q_t . k_s) w_{s+1} ... w_t beta_s for s <= t, KK_ts in the same way for s < t. All u of
the chunk solve a unit lower-triangular system (the WY form of the delta rule):

    (I + KK) U = V - (K * since) S
    Y = (Q * since) S + QK U
    next S = since_C S + (K * beta * until)^T U

The system does not contain S: its inverse is computed for all chunks together.

The operator works on tiles of a few chunks. It saves the memories at the boundaries of the chunks and the inverses; the
backward pass computes the rest of a tile again, from the last tile to the first. Let X = V - (K * since) S. Then

    dX = (I + KK)^-T dU = dV        dQK = dY U^T        dKK = -dX U^T

so the backward pass treats k as a second set of queries, whose outputs have the gradient -dX. Let G_t be the logarithm
of since_t. exp(G_t) is a factor of q_t, where it changes y_t, a factor of k_t as a query, where it changes u_t - v_t,
and a divisor of k_t as a key, where it changes what u_t writes. So the gradient of G_t is

    y_t . dy_t + (u_t - v_t) . dx_t - u_t . dx_t = y_t . dy_t - v_t . dv_t

The gradient of log w_t is the sum of the gradients of G_t and of all later G. Everything after a tile depends on the
tile's decays only through the memory S at its end, so this sum starts anew in each tile, with the sum of S dS: rounding
errors of long sequences do not add up.

Legend: B batch, T time, H heads, K key width, V value width; N chunks of C positions, M = B * H, L = N * M in a tile;
2 sets of queries, Q = 2 C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.chunks import in_chunks, padded, steps, sums_of_later
from lmzoo.ops.delta_tiles import Chunks, times
from lmzoo.ops.operator import gradient_room, operator
from lmzoo.ops.precision import without_autocast

CHUNK_LENGTH = 16  # longer chunks need more work for the scores, shorter ones more memories
LARGE = 1 << 12  # numbers in the memory of a head; from this on, chunks have twice the length
LONGEST_SINGLE = 32  # up to this length, a sequence is one chunk, which takes fewer calls


def delta_chunks(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """Returns `y_BTHV` and the last memory; all tensors have the same dtype, float32 or float64."""
    T = q_BTHK.shape[1]
    C = chunk_length(T, q_BTHK.shape[-1], v_BTHV.shape[-1])
    inputs = (None if x is None else padded(x, C) for x in (q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH))
    with without_autocast(q_BTHK):
        y_BTHV, last_BHKV, *_ = torch.ops.lmzoo.delta_chunks(*inputs, state_BHKV, C)
    return y_BTHV[:, :T], last_BHKV


def chunk_length(T: int, K: int, V: int) -> int:
    """Returns the number of positions of a chunk."""
    if T <= LONGEST_SINGLE:
        return T
    return 2 * CHUNK_LENGTH if K * V >= LARGE else CHUNK_LENGTH


# A custom operator: autograd would keep all tensors of all chunks, and torch.compile would unroll the loops.


@operator("delta_chunks")
def _forward(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    state_BHKV: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns `y_BTHV`, the last memory, the memories at the boundaries of all chunks, and the inverses."""
    chunks = Chunks(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH, C)
    S_NMKV, inverse_NMCC = _room(q_BTHK, state_BHKV, C)
    S_NMKV[0] = state_BHKV.flatten(0, 1)
    y_BTHV = v_BTHV.new_empty(v_BTHV.shape)
    ys = in_chunks(y_BTHV, C)
    for n in chunks.tiles:
        y_LCV = _forward_tile(chunks, n, S_NMKV[n.start : n.stop + 1], inverse_NMCC[n].flatten(0, 1))
        ys[n].copy_(y_LCV.view(ys[n].shape))
    return y_BTHV, S_NMKV[-1].reshape(state_BHKV.shape).clone(), S_NMKV, inverse_NMCC


def _forward_tile(chunks: Chunks, n: slice, S_NMKV: Tensor, inverse_LCC: Tensor) -> Tensor:
    """Returns the outputs of the chunks n. Writes the memories after the first and the inverses."""
    tile, N = chunks.tile(n), n.stop - n.start
    scores_LCC, below_LCC = tile.scores(tile.q_LQK).chunk(2, dim=1)
    # The diagonal of the system is one by definition and is never read.
    eye_CC = torch.eye(scores_LCC.shape[-1], dtype=scores_LCC.dtype, device=scores_LCC.device)
    torch.linalg.solve_triangular(below_LCC, eye_CC, upper=False, unitriangular=True, out=inverse_LCC)
    near_q_LCK, near_k_LCK = tile.near_q_LQK.chunk(2, dim=1)
    v_LCV = chunks.v[n].clone(memory_format=torch.contiguous_format).flatten(0, 2)
    u_LCV = torch.empty_like(v_LCV)
    read, written, kept = (steps(x, N) for x in (near_k_LCK, tile.near_k_LCK.mT, tile.kept_L11))
    v, u, inverse, S = steps(v_LCV, N), steps(u_LCV, N), steps(inverse_LCC, N), S_NMKV.unbind(0)
    for i in range(N):
        torch.bmm(inverse[i], v[i].baddbmm_(read[i], S[i], alpha=-1), out=u[i])
        torch.mul(kept[i], S[i], out=S[i + 1]).baddbmm_(written[i], u[i])
    return torch.bmm(scores_LCC, u_LCV).baddbmm_(near_q_LCK, S_NMKV[:-1].flatten(0, 1))


@operator("delta_chunks_backward")
def _backward_pass(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    y_BTHV: Tensor,
    S_NMKV: Tensor,
    inverse_NMCC: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (q, k, v, beta, log_decay, state); without decays, their gradient is an empty tensor."""
    chunks = Chunks(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH, C)
    gradients = gradient_room(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH)
    grad_q, grad_k, grad_v, grad_beta = (in_chunks(x, C) for x in gradients[:4])
    grad_y, y = in_chunks(grad_y_BTHV, C), in_chunks(y_BTHV, C)
    grad_MKV = grad_last_BHKV.flatten(0, 1)
    for n in reversed(chunks.tiles):
        memories = S_NMKV[n.start : n.stop + 1]
        end_BH = (memories[-1] * grad_MKV).sum((-2, -1)).view(grad_y.shape[1:3])  # the gradient of G at its end
        parts = _backward_tile(chunks, n, grad_y[n], memories, inverse_NMCC[n].flatten(0, 1), grad_MKV)
        for part_LCX, out in zip(parts, (grad_q, grad_k, grad_v, grad_beta), strict=False):
            out[n].copy_(part_LCX.view(out[n].shape))
        grad_MKV = parts[-1]
        if log_decay_BTH is not None:
            grad_G = (y[n] * grad_y[n]).sub_(chunks.v[n] * grad_v[n]).sum(-1)
            in_chunks(gradients[4], C)[n] = sums_of_later(grad_G, end_BH)
    q, k, v, beta, log_decay = gradients
    return q, k, v, beta, log_decay, grad_MKV.reshape(grad_last_BHKV.shape).clone()


def _backward_tile(
    chunks: Chunks, n: slice, grad_y: Tensor, S_NMKV: Tensor, inverse_LCC: Tensor, grad_MKV: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of q, k, v, beta and the first memory of the chunks n, from the gradient of the last."""
    tile, N = chunks.tile(n), n.stop - n.start
    (C, V), starts_LKV = grad_y.shape[-2:], S_NMKV[:-1].flatten(0, 1)
    near_k_LCK = tile.near_q_LQK[:, C:]
    u_LCV = torch.bmm(inverse_LCC, torch.baddbmm(chunks.v[n].flatten(0, 2), near_k_LCK, starts_LKV, alpha=-1))
    grads_LQV = grad_y.new_empty(len(u_LCV), 2 * C, V)  # dY and, below, -dX
    grads_LQV[:, :C].view(grad_y.shape).copy_(grad_y)
    grad_u_LCV = torch.bmm(tile.scores(tile.q_LQK[:, :C]).mT, grads_LQV[:, :C])
    grads_NMKV = S_NMKV.new_empty(S_NMKV.shape)  # of the memories
    grads_NMKV[N] = grad_MKV
    inputs = (tile.near_q_LQK.mT, tile.near_k_LCK, tile.kept_L11, inverse_LCC.mT)
    read, written, kept, inverse = (steps(x, N) for x in inputs)
    grad_u, grads, grads_below = (steps(x, N) for x in (grad_u_LCV, grads_LQV, grads_LQV[:, C:]))
    grad_S = grads_NMKV.unbind(0)
    for i in reversed(range(N)):
        grad_u[i].baddbmm_(written[i], grad_S[i + 1])
        torch.neg(torch.bmm(inverse[i], grad_u[i]), out=grads_below[i])
        torch.mul(kept[i], grad_S[i + 1], out=grad_S[i]).baddbmm_(read[i], grads[i])
    grad_scores_LQC = times(torch.bmm(grads_LQV, u_LCV.mT), tile.between_LCC)
    grad_scores_LQC[:, C:].diagonal(dim1=1, dim2=2).zero_()
    grad_q_LQK = torch.bmm(grads_LQV, starts_LKV.mT)
    grad_k_LCK = torch.bmm(u_LCV, grads_NMKV[1:].flatten(0, 1).mT)
    if tile.since_LC1 is not None and tile.until_LC1 is not None:
        times(grad_q_LQK, tile.since_LC1)
        grad_k_LCK.mul_(tile.until_LC1)
    grad_k_LCK.baddbmm_(grad_scores_LQC.mT, tile.q_LQK)  # so far of beta * k
    grad_q_LQK.baddbmm_(grad_scores_LQC.mul_(tile.beta_LC1.mT), tile.k_LCK)
    grad_beta_LC = (grad_k_LCK * tile.k_LCK).sum(-1)
    grad_q_LCK, grad_k_as_query_LCK = grad_q_LQK.chunk(2, dim=1)
    grad_k_LCK.mul_(tile.beta_LC1).add_(grad_k_as_query_LCK)
    return grad_q_LCK, grad_k_LCK, -grads_LQV[:, C:], grad_beta_LC, grad_S[0]


def _room(q_BTHK: Tensor, state_BHKV: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """Returns room for the memories at the boundaries of all chunks (N + 1, M, K, V) and the inverses (N, M, C, C)."""
    N, (M, K, V) = q_BTHK.shape[1] // C, state_BHKV.flatten(0, 1).shape
    return state_BHKV.new_empty(N + 1, M, K, V), state_BHKV.new_empty(N, M, C, C)


@torch.library.register_fake("lmzoo::delta_chunks")
def _forward_fake(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    state_BHKV: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return v_BTHV.new_empty(v_BTHV.shape), state_BHKV.new_empty(state_BHKV.shape), *_room(q_BTHK, state_BHKV, C)


@torch.library.register_fake("lmzoo::delta_chunks_backward")
def _backward_fake(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTH: Tensor | None,
    y_BTHV: Tensor,
    S_NMKV: Tensor,
    inverse_NMCC: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, beta, log_decay = gradient_room(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH)
    return q, k, v, beta, log_decay, grad_last_BHKV.new_empty(grad_last_BHKV.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y_BTHV, _, *memories = output
    *tensors, _, ctx.C = inputs
    ctx.save_for_backward(*tensors, y_BTHV, *memories)
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved memories


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: with activation checkpointing each read would need its own recomputation
    k_BTHK, v_BTHV, _beta, log_decay_BTH = saved[1:5]
    grad_y_BTHV = torch.zeros_like(v_BTHV) if grad_y is None else grad_y
    if grad_last is None:
        grad_last = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    with without_autocast(v_BTHV):
        *grads, grad_log, grad_state = torch.ops.lmzoo.delta_chunks_backward(grad_y_BTHV, grad_last, *saved, ctx.C)
    return *grads, None if log_decay_BTH is None else grad_log, grad_state, None


torch.library.register_autograd("lmzoo::delta_chunks", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.delta_chunks)
def _forward_flops(q_shape: list[int], k_shape: list[int], v_shape: list[int], *_: object, **__: object) -> int:
    """Per token, head and entry of the memory: a multiply-add for each of two reads and one write."""
    B, T, H, K = q_shape
    return 6 * B * T * H * K * v_shape[-1]


@register_flop_formula(torch.ops.lmzoo.delta_chunks_backward)
def _backward_flops(grad_shape: list[int], last_shape: list[int], q_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass, the usual convention; what is computed again is not counted."""
    return 2 * _forward_flops(q_shape, q_shape, grad_shape)
