"""Scores of queries with decayed keys within chunks of a sequence: what all chunked linear attention has in common.

For the positions c and s <= c of a chunk, with a_c the decays of the K channels at c,

    scores[c, s] = sum over k of  q[c, k] key[s, k] (a[s + 1] ... a[c])[k]
    since[c]     = a[0] ... a[c]                 until[s] = a[s + 1] ... a[C - 1]

No decay is ever divided by another one, and no difference of logarithms is taken: both would be inexact or infinite for
strong decays. The chunk is halved instead. For s in the first half and c in the second the product of decays is `until`
of the first half times `since` of the second, both at most one, so one matrix product computes these scores. The halves
are treated in the same way. A decay of zero, whose logarithm is minus infinity, is exact.

In the backward pass, scores and `since` depend on log a only through its sums from the chunk's start to c, and `until`
through its sums from c to the end. A sum that reaches c enters as a factor of q[c] and as a divisor of key[c], so its
gradient is q dq - key dkey.

`naive_decayed_scores` is the definition. With one decay for all channels, the products of decays form a matrix (C, C).

Legend: L chunks of all rows and heads, C positions of a chunk, a power of two, K channels, A width of the decays, K or
1, G sets of queries, J sets of keys; inside the fast form blocks of 2 S positions, I of them in a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.operator import operator

Scores = tuple[Tensor, Tensor, Tensor]


def naive_decayed_scores(q_GLCK: Tensor, k_JLCK: Tensor, log_decay_LCA: Tensor) -> Scores:
    """The definition, one pair of positions after another; arguments and results as in `decayed_scores`."""
    C, a_LCA = q_GLCK.shape[2], log_decay_LCA.exp()
    rows = []
    for c in range(C):
        between_LA, row = (
            torch.ones_like(a_LCA[:, 0]),
            [torch.zeros_like(q_GLCK[:, None, :, 0, 0] * k_JLCK[:, :, 0, 0])],
        )
        row = row * (C - 1 - c)
        for s in range(c, -1, -1):
            row.append(torch.einsum("glk,jlk->gjl", q_GLCK[:, :, c] * between_LA, k_JLCK[:, :, s]))
            between_LA = between_LA * a_LCA[:, s]
        rows.append(torch.stack(row[::-1], dim=-1))
    since = [a_LCA[:, : c + 1].prod(dim=1) for c in range(C)]
    until = [a_LCA[:, c + 1 :].prod(dim=1) for c in range(C)]
    return torch.stack(rows, dim=-2), torch.stack(since, dim=1), torch.stack(until, dim=1)


def decayed_scores(q_GLCK: Tensor, k_JLCK: Tensor, log_decay_LCA: Tensor) -> Scores:
    """Returns the scores of all queries with all keys of their chunk, (G, J, L, C, C), `since` and `until` (L, C, A).

    The logarithms of the decays are from minus infinity to 0. Scores above the diagonal are zero.
    """
    if log_decay_LCA.shape[-1] < k_JLCK.shape[-1]:
        between_LCC, since_LC1, until_LC1 = _scalar_decays(log_decay_LCA)
        return (q_GLCK[:, None] @ k_JLCK.mT) * between_LCC, since_LC1, until_LC1
    return torch.ops.lmzoo.decayed_scores(q_GLCK.contiguous(), k_JLCK.contiguous(), log_decay_LCA.contiguous())


def _scalar_decays(log_decay_LC1: Tensor) -> Scores:
    """Returns the products of the decays s + 1 ... c (L, C, C), 0 for c < s, `since` and `until`."""
    position_C = torch.arange(log_decay_LC1.shape[1], device=log_decay_LC1.device)
    later_CC = position_C[:, None] > position_C
    sums_LCC = torch.where(later_CC, log_decay_LC1, 0.0).cumsum(dim=1)
    between_LCC = sums_LCC.masked_fill(later_CC.mT, -torch.inf).exp()
    return between_LCC, log_decay_LC1.cumsum(dim=1).exp(), between_LCC[:, -1, :, None]


# A custom operator, because autograd through the levels keeps and adds a tensor for each half of each level.


@operator("decayed_scores")
def _forward(q_GLCK: Tensor, k_JLCK: Tensor, log_decay_LCK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (G, L, C, _), J = q_GLCK.shape, len(k_JLCK)
    scores_GJLCC = q_GLCK.new_zeros(G, J, L, C, C)
    since_LCK, until_LCK = torch.exp(log_decay_LCK), torch.ones_like(log_decay_LCK)
    torch.sum(q_GLCK[:, None] * k_JLCK, dim=-1, out=scores_GJLCC.diagonal(dim1=-2, dim2=-1))
    for S in _block_sizes(C):
        q_XQK, k_XJK = _decayed_halves(q_GLCK, since_LCK, 1, S), _decayed_halves(k_JLCK, until_LCK, 0, S)
        products = (q_XQK @ k_XJK.mT).view(L, -1, G, S, J, S)
        _corners(scores_GJLCC, S).copy_(products.permute(2, 4, 0, 3, 5, 1))
        _double(since_LCK, until_LCK, S)
    return scores_GJLCC, since_LCK, until_LCK


@operator("decayed_scores_backward")
def _backward_pass(
    grad_GJLCC: Tensor,
    grad_since_LCK: Tensor | None,
    grad_until_LCK: Tensor | None,
    q_GLCK: Tensor,
    k_JLCK: Tensor,
    log_decay_LCK: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of (q, k, log_decay)."""
    (G, L, C, K), J = q_GLCK.shape, len(k_JLCK)
    grad_q_GLCK, grad_k_JLCK = torch.zeros_like(q_GLCK), torch.zeros_like(k_JLCK)
    since_LCK, until_LCK = torch.exp(log_decay_LCK), torch.ones_like(log_decay_LCK)
    for S in _block_sizes(C):
        q_XQK, k_XJK = _decayed_halves(q_GLCK, since_LCK, 1, S), _decayed_halves(k_JLCK, until_LCK, 0, S)
        corners_XQJ = _corners(grad_GJLCC, S).permute(2, 5, 0, 3, 1, 4).reshape(-1, G * S, J * S)
        through_q = (corners_XQJ @ k_XJK).view(L, -1, G, S, K).permute(2, 0, 1, 3, 4)
        through_k = (corners_XQJ.mT @ q_XQK).view(L, -1, J, S, K).permute(2, 0, 1, 3, 4)
        _half(grad_q_GLCK, 1, S).addcmul_(through_q, _half(since_LCK, 1, S))
        _half(grad_k_JLCK, 0, S).addcmul_(through_k, _half(until_LCK, 0, S))
        _double(since_LCK, until_LCK, S)
    through_LCK = (q_GLCK * grad_q_GLCK).sum(0).sub_((k_JLCK * grad_k_JLCK).sum(0))
    if grad_since_LCK is not None:
        through_LCK.addcmul_(since_LCK, grad_since_LCK)
    grad_log_LCK = through_LCK.flip(1).cumsum(1).flip(1)
    if grad_until_LCK is not None:
        grad_log_LCK[:, 1:].add_((until_LCK * grad_until_LCK)[:, :-1].cumsum(1))
    diagonal_GJLC1 = grad_GJLCC.diagonal(dim1=-2, dim2=-1)[..., None]
    for g in range(G):
        for j in range(J):
            grad_q_GLCK[g].addcmul_(diagonal_GJLC1[g, j], k_JLCK[j])
            grad_k_JLCK[j].addcmul_(diagonal_GJLC1[g, j], q_GLCK[g])
    return grad_q_GLCK, grad_k_JLCK, grad_log_LCK


def _block_sizes(C: int) -> list[int]:
    """Returns S for all levels: 1, 2, 4 ... C / 2."""
    return [1 << level for level in range(C.bit_length() - 1)]


def _half(x_LCK: Tensor, which: int, S: int) -> Tensor:
    """Returns a view of the first (0) or the second (1) halves of blocks of 2 S positions: (..., I, S, K)."""
    return x_LCK.unflatten(-2, (-1, 2, S)).select(-3, which)


def _decayed_halves(x_ULCK: Tensor, decay_LCK: Tensor, which: int, S: int) -> Tensor:
    """Returns the halves of all U sets times their decays, (L I, U S, K): the operands of one product per block."""
    U, L, C, K = x_ULCK.shape
    out_LIUSK = x_ULCK.new_empty(L, C // (2 * S), U, S, K)
    torch.mul(_half(x_ULCK, which, S), _half(decay_LCK, which, S), out=out_LIUSK.permute(2, 0, 1, 3, 4))
    return out_LIUSK.view(-1, U * S, K)


def _corners(scores_GJLCC: Tensor, S: int) -> Tensor:
    """Returns a view of the scores of second halves with first halves: (G, J, L, S, S, I)."""
    blocks = scores_GJLCC.unflatten(-1, (-1, 2 * S)).unflatten(-3, (-1, 2 * S))  # (G, J, L, I, 2 S, I, 2 S)
    return blocks.diagonal(dim1=3, dim2=5)[..., S:, :S, :]


def _double(since_LCK: Tensor, until_LCK: Tensor, S: int) -> None:
    """Extends the products of decays from blocks of S positions to blocks of 2 S, in place."""
    since_second = _half(since_LCK, 1, S)
    _half(until_LCK, 0, S).mul_(since_second[..., -1:, :])
    since_second.mul_(_half(since_LCK, 0, S)[..., -1:, :])


@torch.library.register_fake("lmzoo::decayed_scores")
def _forward_fake(q_GLCK: Tensor, k_JLCK: Tensor, log_decay_LCK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    G, L, C, _ = q_GLCK.shape
    scores = q_GLCK.new_empty(G, len(k_JLCK), L, C, C)
    return scores, torch.empty_like(log_decay_LCK), torch.empty_like(log_decay_LCK)


@torch.library.register_fake("lmzoo::decayed_scores_backward")
def _backward_fake(
    grad_GJLCC: Tensor,
    grad_since_LCK: Tensor | None,
    grad_until_LCK: Tensor | None,
    q_GLCK: Tensor,
    k_JLCK: Tensor,
    log_decay_LCK: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_GLCK), torch.empty_like(k_JLCK), torch.empty_like(log_decay_LCK)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_since: Tensor | None, grad_until: Tensor | None) -> tuple[Any, ...]:
    q_GLCK, k_JLCK, log_decay_LCK = ctx.saved_tensors
    if grad is None:
        (G, L, C, _), J = q_GLCK.shape, len(k_JLCK)
        grad = q_GLCK.new_zeros(G, J, L, C, C)
    return torch.ops.lmzoo.decayed_scores_backward(grad, grad_since, grad_until, q_GLCK, k_JLCK, log_decay_LCK)


torch.library.register_autograd("lmzoo::decayed_scores", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the products of the definition.


@register_flop_formula(torch.ops.lmzoo.decayed_scores)
def _forward_flops(q_shape: list[int], k_shape: list[int], *_: object, **__: object) -> int:
    G, L, C, K = q_shape
    return 2 * G * k_shape[0] * L * C * C * K


@register_flop_formula(torch.ops.lmzoo.decayed_scores_backward)
def _backward_flops(
    grad_shape: list[int], since: object, until: object, q_shape: list[int], *_: object, **__: object
) -> int:
    """Two products of the same size: the gradients of the queries and of the keys."""
    G, J, L, C = grad_shape[:4]
    return 4 * G * J * L * C * C * q_shape[3]
