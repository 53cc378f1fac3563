"""Linear attention in chunks, without decays or with one decay for each head and position, in one operator.

For every batch row and head, with vectors as rows, a decay w_t and a memory S that is a matrix (K, V),

    S_t = w_t S_{t-1} + k_t^T v_t
    y_t = q_t S_t

Let S be the memory before a chunk of C positions, and, as in `lmzoo.ops.decayed_scores`, `since_t` = w_1 ... w_t and
`until_s` = w_{s+1} ... w_C. With the scores P_ts = (q_t . k_s) w_{s+1} ... w_t for s <= t,

    Y = since * (Q S) + P V
    next S = since_C S + K^T (until * V)

Heads may share queries and keys in groups. All but the product P V is computed once for a group, as if the values of
its heads were one wide value: the products q_t . k_s are the same for all of them.

The operator works on tiles of a few chunks. It saves the memories at the boundaries of the chunks; the backward pass
computes the rest of a tile again, from the last tile to the first. Let G_t be the logarithm of since_t. exp(G_t) is a
factor of y_t and a divisor of v_t, so the gradient of G_t is y_t . dy_t - v_t . dv_t, and the gradient of log w_t is
the sum of the gradients of G_t and of all later G. Everything after a tile depends on the tile's decays only through
the memory S at its end, so this sum starts anew in each tile, with the sum of S dS: rounding errors of long sequences
do not add up.

Legend: B batch, T time, H heads, G groups of R heads, K key width, V value width, W = R V; N chunks of C positions,
M = B * G, L = N * M in a tile, X = L * R.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.chunks import in_chunks, padded, steps, sums_of_later, tiles
from lmzoo.ops.decayed_scores import DecayProducts
from lmzoo.ops.operator import gradient_room, operator
from lmzoo.ops.precision import without_autocast

CHUNK_LENGTH = 32  # longer chunks need more work for the scores, shorter ones more memories


def linear_chunks(
    q_BTGK: Tensor, k_BTGK: Tensor, v_BTHV: Tensor, log_decay_BTH: Tensor | None, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns `y_BTHV` and the last memory; all tensors have the same dtype, float32 or float64.

    H is a multiple of G: with R = H / G, the heads g R ... g R + R - 1 share the queries and keys g.
    """
    T = q_BTGK.shape[1]
    C = min(CHUNK_LENGTH, T)
    inputs = (None if x is None else padded(x, C) for x in (q_BTGK, k_BTGK, v_BTHV, log_decay_BTH))
    with without_autocast(q_BTGK):
        y_BTHV, last_BHKV, _ = torch.ops.lmzoo.linear_chunks(*inputs, state_BHKV, C)
    return y_BTHV[:, :T], last_BHKV


class _Tile(NamedTuple):
    """The inputs of several chunks, their decays and scores."""

    q_LCK: Tensor
    k_LCK: Tensor
    v_LCW: Tensor
    until_v_LCW: Tensor  # v times the decays to the chunk's end
    between_LRCC: Tensor  # the decays between two positions, zero above the diagonal; L = R = 1 if nothing decays
    since_LCR1: Tensor | None
    until_LCR1: Tensor | None
    kept_L1R1: Tensor  # the product of the chunk's decays
    scores_XCC: Tensor


class _Chunks:
    """The inputs of the operator, cut into chunks and tiles."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, C: int) -> None:
        (B, T, self.G, K), (H, self.V) = q.shape, v.shape[2:]
        self.C, self.R = C, H // self.G
        self.q, self.k, self.v = in_chunks(q, C), in_chunks(k, C), self.groups(v)
        self.log_decay = None if log_decay is None else in_chunks(log_decay, C)
        self.products = DecayProducts(C, q)
        self.tiles = tiles(T // C, B * self.G * C * max(K, self.R * self.V))

    def groups(self, x_BTHV: Tensor) -> Tensor:
        """Returns the chunks of a tensor with a vector for each head, (N, B, G, C, W)."""
        B, T = x_BTHV.shape[:2]
        return in_chunks(x_BTHV.reshape(B, T, self.G, self.R * self.V), self.C)

    def heads(self, x_LCW: Tensor) -> Tensor:
        """Returns the vectors of each head, (X, C, V)."""
        return x_LCW.view(-1, self.C, self.R, self.V).transpose(1, 2).flatten(0, 1)

    def tile(self, n: slice) -> _Tile:
        """Computes the chunks n."""
        C, R = self.C, self.R
        q_LCK, k_LCK, v_LCW = (x[n].flatten(0, 2) for x in (self.q, self.k, self.v))
        L, until_v_LCW, since_LCR1, until_LCR1 = len(q_LCK), v_LCW, None, None
        if self.log_decay is None:
            between_LRCC, kept_L1R1 = self.products.visible_CC[None, None], q_LCK.new_ones(L, 1, 1, 1)
        else:
            decays = self.products(self.log_decay[n].flatten(0, 2))
            between_LRCC, since_LRC1, until_LRC1 = (x.view(L, R, C, x.shape[-1]) for x in decays)
            since_LCR1, until_LCR1 = since_LRC1.transpose(1, 2), until_LRC1.transpose(1, 2)
            until_v_LCW = _times(v_LCW, until_LCR1)
            kept_L1R1 = since_LCR1[:, -1:]
        products_L1CC = torch.bmm(q_LCK, k_LCK.mT)[:, None]
        scores_XCC = (products_L1CC * between_LRCC).expand(L, R, C, C).reshape(L * R, C, C)
        decays = (between_LRCC, since_LCR1, until_LCR1, kept_L1R1)
        return _Tile(q_LCK, k_LCK, v_LCW, until_v_LCW, *decays, scores_XCC)


def _times(x_LCW: Tensor, factor_LCR1: Tensor | None) -> Tensor:
    """Returns the vectors of all heads times their factors; no factors are ones."""
    if factor_LCR1 is None:
        return x_LCW
    L, C, R, _ = factor_LCR1.shape
    return (x_LCW.view(L, C, R, x_LCW.shape[-1] // R) * factor_LCR1).reshape(x_LCW.shape)


def _plus(x_LCW: Tensor, y_XCV: Tensor, factor_LCR1: Tensor | None) -> Tensor:
    """Returns x times the factors, plus y with the vectors of each head, computed in place of x."""
    (L, C, W), V = x_LCW.shape, y_XCV.shape[-1]
    x_LCRV, y_LCRV = x_LCW.view(L, C, W // V, V), y_XCV.view(L, W // V, C, V).transpose(1, 2)
    if factor_LCR1 is None:
        x_LCRV.add_(y_LCRV)
    else:
        torch.addcmul(y_LCRV, x_LCRV, factor_LCR1, out=x_LCRV)
    return x_LCW


# A custom operator: autograd would keep all tensors of all chunks, and torch.compile would unroll the loops.


@operator("linear_chunks")
def _forward(
    q_BTGK: Tensor, k_BTGK: Tensor, v_BTHV: Tensor, log_decay_BTH: Tensor | None, state_BHKV: Tensor, C: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `y_BTHV`, the last memory, and the memories at the boundaries of all chunks (N + 1, M, K, W)."""
    chunks = _Chunks(q_BTGK, k_BTGK, v_BTHV, log_decay_BTH, C)
    S_NMKW, y_BTHV = _room(q_BTGK, state_BHKV, C), v_BTHV.new_empty(v_BTHV.shape)
    S_NMKW[0] = _by_group(state_BHKV, chunks.G)
    ys = chunks.groups(y_BTHV)
    for n in chunks.tiles:
        y_LCW = _forward_tile(chunks, n, S_NMKW[n.start : n.stop + 1])
        ys[n].copy_(y_LCW.view(ys[n].shape))
    return y_BTHV, _by_head(S_NMKW[-1], state_BHKV), S_NMKW


def _forward_tile(chunks: _Chunks, n: slice, S_NMKW: Tensor) -> Tensor:
    """Returns the outputs of the chunks n. Writes the memories after the first."""
    tile = chunks.tile(n)
    _carry(S_NMKW, tile.kept_L1R1, tile.k_LCK, tile.until_v_LCW)
    y_LCW = torch.bmm(tile.q_LCK, S_NMKW[:-1].flatten(0, 1))
    return _plus(y_LCW, torch.bmm(tile.scores_XCC, chunks.heads(tile.v_LCW)), tile.since_LCR1)


def _carry(S_NMKW: Tensor, kept_L1R1: Tensor, k_LCK: Tensor, v_LCW: Tensor, *, back: bool = False) -> None:
    """Computes S_{n+1} = kept_n S_n + K_n^T V_n for the chunks of a tile, or back, S_n = kept_n S_{n+1} + K_n^T V_n."""
    (N, M, K, W), R = S_NMKW.shape, kept_L1R1.shape[2]
    written_NMKW = S_NMKW[:-1] if back else S_NMKW[1:]
    torch.bmm(k_LCK.mT, v_LCW, out=written_NMKW.flatten(0, 1))
    kept, S = steps(kept_L1R1, N - 1), S_NMKW.view(N, M, K, R, W // R).unbind(0)
    for n in reversed(range(N - 1)) if back else range(N - 1):
        old, new = (n + 1, n) if back else (n, n + 1)
        S[new].addcmul_(kept[n], S[old])


@operator("linear_chunks_backward")
def _backward_pass(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor | None,
    y_BTHV: Tensor,
    S_NMKW: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (q, k, v, log_decay, state); without decays, their gradient is an empty tensor."""
    chunks = _Chunks(q_BTGK, k_BTGK, v_BTHV, log_decay_BTH, C)
    q, k, v, log_decay = gradient_room(q_BTGK, k_BTGK, v_BTHV, log_decay_BTH)
    outs = (in_chunks(q, C), in_chunks(k, C), chunks.groups(v))
    grad_y, grad_MKW = chunks.groups(grad_y_BTHV), _by_group(grad_last_BHKV, chunks.G)
    for n in reversed(chunks.tiles):
        *parts, first_MKW = _backward_tile(chunks, n, grad_y[n], S_NMKW[n.start : n.stop + 1], grad_MKW)
        for part_LCX, out in zip(parts, outs, strict=True):
            out[n].copy_(part_LCX.view(out[n].shape))
        if log_decay_BTH is not None:
            end_BH = _by_head(S_NMKW[n.stop] * grad_MKW, grad_last_BHKV).sum((-2, -1))  # the gradient of G at its end
            y, dy, v_, dv = (in_chunks(x, C)[n] for x in (y_BTHV, grad_y_BTHV, v_BTHV, v))
            in_chunks(log_decay, C)[n] = sums_of_later((y * dy).sub_(v_ * dv).sum(-1), end_BH)
        grad_MKW = first_MKW
    return q, k, v, log_decay, _by_head(grad_MKW, grad_last_BHKV)


def _backward_tile(
    chunks: _Chunks, n: slice, grad_y: Tensor, S_NMKW: Tensor, grad_MKW: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of q, k, v and the first memory of the chunks n, from the gradient of the last."""
    tile, grads_NMKW = chunks.tile(n), S_NMKW.new_empty(S_NMKW.shape)
    grad_y_LCW = grad_y.flatten(0, 2)
    since_grad_LCW = _times(grad_y_LCW, tile.since_LCR1)
    grads_NMKW[-1] = grad_MKW
    _carry(grads_NMKW, tile.kept_L1R1, tile.q_LCK, since_grad_LCW, back=True)
    starts_LKW, grads_LKW = S_NMKW[:-1].flatten(0, 1), grads_NMKW[1:].flatten(0, 1)
    grad_y_XCV = chunks.heads(grad_y_LCW)
    grad_v_LCW = torch.bmm(tile.k_LCK, grads_LKW)
    _plus(grad_v_LCW, torch.bmm(tile.scores_XCC.mT, grad_y_XCV), tile.until_LCR1)
    grad_scores_XCC = torch.bmm(grad_y_XCV, chunks.heads(tile.v_LCW).mT)
    grad_scores_LRCC = grad_scores_XCC.unflatten(0, (-1, chunks.R)).mul_(tile.between_LRCC)
    grad_products_LCC = grad_scores_LRCC[:, 0] if chunks.R == 1 else grad_scores_LRCC.sum(1)
    grad_q_LCK = torch.bmm(since_grad_LCW, starts_LKW.mT).baddbmm_(grad_products_LCC, tile.k_LCK)
    grad_k_LCK = torch.bmm(tile.until_v_LCW, grads_LKW.mT).baddbmm_(grad_products_LCC.mT, tile.q_LCK)
    return grad_q_LCK, grad_k_LCK, grad_v_LCW, grads_NMKW[0]


def _by_group(S_BHKV: Tensor, G: int) -> Tensor:
    """Rearranges memories to (M, K, W)."""
    B, H, K, V = S_BHKV.shape
    return S_BHKV.reshape(B, G, H // G, K, V).transpose(2, 3).reshape(B * G, K, H // G * V)


def _by_head(S_MKW: Tensor, like_BHKV: Tensor) -> Tensor:
    """Returns a copy of memories, rearranged to (B, H, K, V)."""
    (M, K, W), V = S_MKW.shape, like_BHKV.shape[-1]
    out_BHKV = S_MKW.new_empty(like_BHKV.shape)
    out_BHKV.view(M, W // V, K, V).copy_(S_MKW.view(M, K, W // V, V).transpose(1, 2))
    return out_BHKV


def _room(q_BTGK: Tensor, state_BHKV: Tensor, C: int) -> Tensor:
    """Returns room for the memories at the boundaries of all chunks, (N + 1, M, K, W)."""
    (B, T, G, K), (H, V) = q_BTGK.shape, state_BHKV.shape[1::2]
    return state_BHKV.new_empty(T // C + 1, B * G, K, H // G * V)


@torch.library.register_fake("lmzoo::linear_chunks")
def _forward_fake(
    q_BTGK: Tensor, k_BTGK: Tensor, v_BTHV: Tensor, log_decay_BTH: Tensor | None, state_BHKV: Tensor, C: int
) -> tuple[Tensor, Tensor, Tensor]:
    return v_BTHV.new_empty(v_BTHV.shape), state_BHKV.new_empty(state_BHKV.shape), _room(q_BTGK, state_BHKV, C)


@torch.library.register_fake("lmzoo::linear_chunks_backward")
def _backward_fake(
    grad_y_BTHV: Tensor,
    grad_last_BHKV: Tensor,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor | None,
    y_BTHV: Tensor,
    S_NMKW: Tensor,
    C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, log_decay = gradient_room(q_BTGK, k_BTGK, v_BTHV, log_decay_BTH)
    return q, k, v, log_decay, grad_last_BHKV.new_empty(grad_last_BHKV.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y_BTHV, _, S_NMKW = output
    *tensors, _, ctx.C = inputs
    ctx.save_for_backward(*tensors, y_BTHV, S_NMKW)
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved memories


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: with activation checkpointing each read would need its own recomputation
    k_BTGK, v_BTHV, log_decay_BTH = saved[1:4]
    grad_y_BTHV = torch.zeros_like(v_BTHV) if grad_y is None else grad_y
    if grad_last is None:
        (B, _T, H, V), K = v_BTHV.shape, k_BTGK.shape[-1]
        grad_last = v_BTHV.new_zeros(B, H, K, V)
    with without_autocast(v_BTHV):
        *grads, grad_log, grad_state = torch.ops.lmzoo.linear_chunks_backward(grad_y_BTHV, grad_last, *saved, ctx.C)
    return *grads, None if log_decay_BTH is None else grad_log, grad_state, None


torch.library.register_autograd("lmzoo::linear_chunks", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.linear_chunks)
def _forward_flops(q_shape: list[int], k_shape: list[int], v_shape: list[int], *_: object, **__: object) -> int:
    """Per token, head and entry of the memory: a multiply-add for a write and a read."""
    B, T, H, V = v_shape
    return 4 * B * T * H * q_shape[-1] * V


@register_flop_formula(torch.ops.lmzoo.linear_chunks_backward)
def _backward_flops(grad_shape: list[int], last_shape: list[int], q_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass, the usual convention; what is computed again is not counted."""
    return 2 * _forward_flops(q_shape, q_shape, grad_shape)
