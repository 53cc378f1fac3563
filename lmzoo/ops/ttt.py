"""Test-time training of a linear model: a memory that takes a step of gradient descent for each token.

TTT-Linear (Sun et al. 2024, arXiv 2407.04620). For every batch row and head, the memory W is the weight of an inner
model f(x) = x + LN(x W), with a bias as the last row of W: vectors below end with a constant 1 where they meet W. The
token's key and value are its training example,

    loss_t(W) = |f(k_t) - v_t|² / 2
    W_t = W_{t-1} - rate_t grad loss_t(W_start)
    y_t = f(q_t) with the weights W_t

W_start is the memory before the present mini-batch of C tokens, so the gradients of a mini-batch do not depend on each
other. Mini-batches count from the start of the sequence: the state holds W_start beside W_t. With momentum and
forgetting (Titans, Behrouz et al. 2025, arXiv 2501.00663), both between 0 and 1 and different for each token,

    S_t = momentum_t S_{t-1} + rate_t grad loss_t(W_start)
    W_t = keep_t W_{t-1} - S_t

Without them momentum is 0 and keep is 1. The gradient is k_t^T g_t, where g_t is the gradient of the loss for
z_t = k_t W_start: the one of a layer norm, in closed form. So nothing here needs autograd, and the gradients of the
outer loss are exact.

`naive_ttt` computes this token by token. `batched_ttt` computes a mini-batch at once (the dual form): all g_t from one
product, then, with U_t = rate_t k_t^T g_t, products of the factors between two tokens in place of the loop,

    S_t = M_t0 S_0 + sum_s M_ts U_s              M_ts = momentum_{s+1} ... momentum_t
    W_t = K_t0 W_0 - sum_s K_ts S_s              K_ts = keep_{s+1} ... keep_t
        = K_t0 W_0 - (K M)_t0 S_0 - sum_s (K M)_ts U_s
    q_t W_t = K_t0 q_t W_0 - (K M)_t0 q_t S_0 - sum_s (K M)_ts (q_t k_s) rate_s g_s

Legend: B batch, T time, H heads, K head width, J = K + 1 (with the constant 1); inside the batched form M = B * H rows,
N tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype, without_autocast

SHORTEST_BATCHED = 3  # for shorter sequences the loop needs fewer calls


class InnerNorm(NamedTuple):
    """The layer norm of the inner model."""

    weight_HK: Tensor
    bias_HK: Tensor
    eps: float


class Memory(NamedTuple):
    """The inner model's weights, float32 or wider, and what its next step needs."""

    start_BHJK: Tensor  # before the first token of the present mini-batch
    now_BHJK: Tensor  # after the last token
    velocity_BHJK: Tensor | None  # S above; None without momentum


class Decays(NamedTuple):
    """Logarithms of the factors keep and momentum of each token, from minus infinity to 0."""

    log_keep_BTH: Tensor
    log_momentum_BTH: Tensor


def naive_ttt(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    norm: InnerNorm,
    memory: Memory,
    decays: Decays | None = None,
    mini_batch: int = 1,
    position: int = 0,
) -> tuple[Tensor, Memory]:
    """The definition, one token after another; arguments and results as in `ttt`."""
    dtype = wide_dtype(v_BTHK.dtype)
    q, k, v, rate = (x.to(dtype) for x in (q_BTHK, k_BTHK, v_BTHK, rate_BTH))
    w_HK, b_HK = norm.weight_HK.to(dtype), norm.bias_HK.to(dtype)
    start, now, velocity = memory
    ys = []
    for t in range(q.shape[1]):
        if (position + t) % mini_batch == 0:
            start = now
        k_BHJ1, q_BHJ1 = _with_one(k[:, t])[..., None], _with_one(q[:, t])[..., None]
        g_BHK = inner_gradient((k_BHJ1 * start).sum(dim=-2), v[:, t] - k[:, t], w_HK, b_HK, norm.eps)
        step = rate[:, t, :, None, None] * k_BHJ1 * g_BHK[..., None, :]
        if decays is None or velocity is None:
            now = now - step
        else:
            keep_BH, momentum_BH = (x[:, t].to(dtype).exp() for x in decays)
            velocity = momentum_BH[..., None, None] * velocity + step
            now = keep_BH[..., None, None] * now - velocity
        ys.append((q_BHJ1 * now).sum(dim=-2))
    y_BTHK = q + w_HK * F.layer_norm(torch.stack(ys, dim=1), q.shape[-1:], eps=norm.eps) + b_HK
    return y_BTHK.to(v_BTHK.dtype), Memory(start, now, velocity)


def batched_ttt(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    norm: InnerNorm,
    memory: Memory,
    decays: Decays | None = None,
    mini_batch: int = 1,
    position: int = 0,
) -> tuple[Tensor, Memory]:
    """The fast form, one mini-batch, or the part of one, after another; arguments and results as in `ttt`."""
    B, T, H, K = v_BTHK.shape
    dtype = wide_dtype(v_BTHK.dtype)
    factors = () if decays is None else decays
    rows = (rearrange(x.to(dtype), "b t h ... -> (b h) t ...") for x in (q_BTHK, k_BTHK, v_BTHK, rate_BTH, *factors))
    w_M1K, b_M1K = (x.to(dtype).repeat(B, 1)[:, None] for x in (norm.weight_HK, norm.bias_HK))
    start, now = memory.start_BHJK.flatten(0, 1), memory.now_BHJK.flatten(0, 1)
    velocity = None if memory.velocity_BHJK is None else memory.velocity_BHJK.flatten(0, 1)
    starts = range(-position % mini_batch, T, mini_batch)  # of mini-batches
    cuts = [start for start in starts if start > 0]
    ys = []
    with without_autocast(v_BTHK):
        pieces = zip(*(x.tensor_split(cuts, dim=1) for x in rows), strict=True)
        for first, (q_MNK, k_MNK, v_MNK, rate_MN, *logs) in zip([0, *cuts], pieces, strict=True):
            start = now if first in starts else start
            q_MNJ, k_MNJ = _with_one(q_MNK), _with_one(k_MNK)
            g_MNK = inner_gradient(k_MNJ @ start, v_MNK - k_MNK, w_M1K, b_M1K, norm.eps)
            step_MNK, scores_MNN = rate_MN[..., None] * g_MNK, q_MNJ @ k_MNJ.mT
            if not logs or velocity is None:
                ys.append(q_MNJ @ now - scores_MNN.tril() @ step_MNK)
                now = now - k_MNJ.mT @ step_MNK
            else:
                keep, momentum = (_products(log_MN) for log_MN in logs)  # (M, N + 1, N + 1), the first is before all
                both = keep[:, 1:, 1:] @ momentum[:, 1:]
                read_MNK = keep[:, 1:, :1] * (q_MNJ @ now) - both[..., :1] * (q_MNJ @ velocity)
                ys.append(read_MNK - (both[..., 1:] * scores_MNN) @ step_MNK)
                now = keep[:, -1:, :1] * now - both[:, -1:, :1] * velocity
                now = now - (both[:, -1, 1:, None] * k_MNJ).mT @ step_MNK
                velocity = momentum[:, -1:, :1] * velocity + (momentum[:, -1, 1:, None] * k_MNJ).mT @ step_MNK
    read_BTHK = rearrange(torch.cat(ys, dim=1), "(b h) t k -> b t h k", b=B)
    w_HK, b_HK = norm.weight_HK.to(dtype), norm.bias_HK.to(dtype)
    y_BTHK = q_BTHK.to(dtype) + w_HK * F.layer_norm(read_BTHK, (K,), eps=norm.eps) + b_HK
    start, now = start.unflatten(0, (B, H)), now.unflatten(0, (B, H))
    velocity = None if velocity is None else velocity.unflatten(0, (B, H))
    return y_BTHK.to(v_BTHK.dtype), Memory(start, now, velocity)


def ttt(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    norm: InnerNorm,
    memory: Memory,
    decays: Decays | None = None,
    *,
    mini_batch: int,
    position: int = 0,
) -> tuple[Tensor, Memory]:
    """Test-time training of a linear model, by the fastest form that fits.

    Args:
        q_BTHK: the inputs at which the inner model is read.
        k_BTHK: the inputs on which it is trained.
        v_BTHK: the targets.
        rate_BTH: the learning rates.
        norm: the layer norm of the inner model.
        memory: the inner model before the first token, as `Memory(W, W, None)`, or from an earlier call.
        decays: forgetting and momentum, or None for neither; with them the memory has a velocity.
        mini_batch: the number of tokens whose gradients are taken at the same weights.
        position: the number of tokens read before: mini-batches count from the start of the sequence.

    Returns:
        `y_BTHK` in the dtype of `v_BTHK`, and the next memory. Computation and memory are float32 whatever the dtype of
        the input (float64 if `v_BTHK` is), under autocast too. Counts as 6 J K FLOPs per token and head: to read at the
        key, to write, and to read at the query takes J K multiply-adds each.
    """
    B, T, H, K = v_BTHK.shape
    form = dispatch(T, naive_ttt, batched_ttt, shortest=SHORTEST_BATCHED)
    with counted_as(6 * B * T * H * (K + 1) * K):
        return form(q_BTHK, k_BTHK, v_BTHK, rate_BTH, norm, memory, decays, mini_batch, position)


def inner_gradient(z: Tensor, target: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Returns the gradient of |weight * normalized(z) + bias - target|² / 2 for z, over the last axis."""
    centered = z - z.mean(dim=-1, keepdim=True)
    scale = torch.rsqrt(centered.square().mean(dim=-1, keepdim=True) + eps)
    normal = centered * scale
    g = weight * (weight * normal + bias - target)
    return scale * (g - g.mean(dim=-1, keepdim=True) - normal * (g * normal).mean(dim=-1, keepdim=True))


def _with_one(x_K: Tensor) -> Tensor:
    """Appends the input of the bias, a constant 1."""
    return F.pad(x_K, (0, 1), value=1.0)


def _products(log_MN: Tensor) -> Tensor:
    """Returns for t >= s in 0 ... N the product of the factors s + 1 ... t, (M, N + 1, N + 1); 0 for t < s.

    The logarithms are added for each pair: a difference of two long sums would lose weak decays between strong ones.
    """
    N = log_MN.shape[-1] + 1
    reached_NN = torch.ones(N, N, dtype=torch.bool, device=log_MN.device).tril()
    log_MNN = torch.where(reached_NN.tril(-1), F.pad(log_MN, (1, 0))[..., None], 0.0).cumsum(dim=-2)
    return log_MNN.exp() * reached_NN
