"""PaTH attention: softmax attention whose keys are transformed by every later token.

Yang et al. 2025, arXiv 2505.16381. Each token has a direction w_t, of length one, and a strength beta_t in (0, 2). It
transforms a key (a column) by the generalized Householder matrix H_t = I - beta_t w_t w_t^T. Key s is seen from query t
with the score

    q_t^T H_t H_{t-1} ... H_{s+1} k_s / sqrt(K)

plus, with gates, c_t - c_s, where c is a cumulative sum of log gates. So positions are told apart by what stands
between query and key. `naive_path_attention` follows the definition: it keeps all earlier keys, transforms all of them
by H_t, and then reads them with q_t. The transformed keys are also the cache of a decoder.

`chunked_path_attention` does this for a chunk of tokens at once. Let W, Q, K, B be the directions, queries, keys and
strengths (a diagonal matrix) of the chunk as rows. At position t of the chunk, a vector x has become x minus the sum of
w_i u_i over all i up to t, where u_i = beta_i w_i^T x_{i-1}. The numbers u solve a unit lower-triangular system, as in
the chunked delta rule. With L = tril(B W W^T, -1), and the keys X before the chunk as rows:

    (I + L) D = B W                  so u = D x for a vector x before the chunk
    (I + L) U = tril(B W K^T, -1)    for the chunk's own keys, which meet later tokens only

    scores in the chunk      tril(Q K^T) - tril(Q W^T) U
    scores of earlier keys   (Q - tril(Q W^T) D) X^T
    keys after the chunk     X - X D^T W,  K - U^T W

A loop over chunks carries the transformed keys.

Legend: B batch, T queries, P earlier keys, S = P + T keys, H query heads, G key/value heads, R = H / G, K head width;
inside the chunked form N chunks, M = B * G, C positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype, without_autocast

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 2  # for a single token the loop needs fewer calls


def naive_path_attention(
    q_BTHK: Tensor,
    k_BTGK: Tensor,
    v_BSGK: Tensor,
    w_BTGK: Tensor,
    beta_BTG: Tensor,
    past_BPGK: Tensor | None = None,
    decay_BSH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one query after another; arguments and results as in `path_attention`."""
    (T, H, K), (S, G), dtype = q_BTHK.shape[1:], v_BSGK.shape[1:3], wide_dtype(v_BSGK.dtype)
    q_BTHK, k_BTGK, v, w_BTGK, beta_BTG = (x.to(dtype) for x in (q_BTHK, k_BTGK, v_BSGK, w_BTGK, beta_BTG))
    keys_BSGK = k_BTGK[:, :0] if past_BPGK is None else past_BPGK.to(dtype)
    ys = []
    for t in range(T):
        along_BSG1 = (keys_BSGK * w_BTGK[:, t, None]).sum(dim=-1, keepdim=True)
        keys_BSGK = keys_BSGK - beta_BTG[:, t, None, :, None] * along_BSG1 * w_BTGK[:, t, None]
        keys_BSGK = torch.cat([keys_BSGK, k_BTGK[:, t, None]], dim=1)
        now = S - T + t
        q_BGRK = q_BTHK[:, t].unflatten(1, (G, H // G))
        scores_BSH = torch.einsum("bgrk,bsgk->bsgr", q_BGRK, keys_BSGK).flatten(2) / math.sqrt(K)
        if decay_BSH is not None:
            scores_BSH = scores_BSH + (decay_BSH[:, now, None] - decay_BSH[:, : now + 1]).to(dtype)
        weights_BSGR = scores_BSH.softmax(dim=1).unflatten(2, (G, H // G))
        ys.append(torch.einsum("bsgr,bsgk->bgrk", weights_BSGR, v[:, : now + 1]).flatten(1, 2))
    return torch.stack(ys, dim=1).to(v_BSGK.dtype), keys_BSGK


def chunked_path_attention(
    q_BTHK: Tensor,
    k_BTGK: Tensor,
    v_BSGK: Tensor,
    w_BTGK: Tensor,
    beta_BTG: Tensor,
    past_BPGK: Tensor | None = None,
    decay_BSH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks of `CHUNK_LENGTH` queries; arguments and results as in `path_attention`."""
    (B, T, _, K), (S, G), dtype = q_BTHK.shape, v_BSGK.shape[1:3], wide_dtype(v_BSGK.dtype)
    C = min(CHUNK_LENGTH, T)
    padding = -T % C  # tokens of zeros at the end, which change no key, and whose results are cut off
    q_NMRCK, k_NMCK, w_NMCK, beta_NMC = (
        rearrange(_padded(x.to(dtype), padding), pattern, c=C, g=G)
        for x, pattern in (
            (q_BTHK, "b (n c) (g r) k -> n (b g) r c k"),
            (k_BTGK, "b (n c) g k -> n (b g) c k"),
            (w_BTGK, "b (n c) g k -> n (b g) c k"),
            (beta_BTG, "b (n c) g -> n (b g) c"),
        )
    )
    v_MSK = rearrange(_padded(v_BSGK.to(dtype), padding), "b s g k -> (b g) s k")
    decay_MRS = None
    if decay_BSH is not None:
        decay_MRS = rearrange(_padded(decay_BSH.to(dtype), padding), "b s (g r) -> (b g) r s", g=G)
    keys_MSK = v_MSK[:, :0] if past_BPGK is None else past_BPGK.to(dtype).transpose(1, 2).flatten(0, 1)
    later_CC = torch.ones(C, C, dtype=torch.bool, device=v_BSGK.device).triu(1)
    ys = []
    with without_autocast(v_BSGK):
        directions_NMCK = beta_NMC[..., None] * w_NMCK
        # The diagonal of the system is one by definition and is never read.
        solution = torch.linalg.solve_triangular(
            (directions_NMCK @ w_NMCK.mT).tril(-1),
            torch.cat([directions_NMCK, (directions_NMCK @ k_NMCK.mT).tril(-1)], dim=-1),
            upper=False,
            unitriangular=True,
        )
        before_NMCK, within_NMCC = solution.split([K, C], dim=-1)
        along_NMRCC = (q_NMRCK @ w_NMCK[:, :, None].mT).tril()
        scores_NMRCC = q_NMRCK @ k_NMCK[:, :, None].mT - along_NMRCC @ within_NMCC[:, :, None]
        scores_NMRCC = scores_NMRCC.masked_fill(later_CC, -math.inf)
        read_NMRCK = q_NMRCK - along_NMRCC @ before_NMCK[:, :, None]
        after_NMCK = k_NMCK - within_NMCC.mT @ w_NMCK
        change_NMKK = before_NMCK.mT @ w_NMCK
        chunks = (x.unbind(0) for x in (read_NMRCK, scores_NMRCC, after_NMCK, change_NMKK))
        for read_MRCK, scores_MRCC, after_MCK, change_MKK in zip(*chunks, strict=True):
            start, end = keys_MSK.shape[1], keys_MSK.shape[1] + C
            scores_MRCS = torch.cat([read_MRCK @ keys_MSK[:, None].mT, scores_MRCC], dim=-1) / math.sqrt(K)
            if decay_MRS is not None:
                scores_MRCS = scores_MRCS + (decay_MRS[..., start:end, None] - decay_MRS[..., None, :end])
            ys.append(scores_MRCS.softmax(dim=-1) @ v_MSK[:, None, :end])
            keys_MSK = torch.cat([keys_MSK - keys_MSK @ change_MKK, after_MCK], dim=1)
    y_BTHK = rearrange(torch.stack(ys), "n (b g) r c k -> b (n c) (g r) k", b=B)[:, :T]
    return y_BTHK.to(v_BSGK.dtype), rearrange(keys_MSK[:, :S], "(b g) s k -> b s g k", b=B)


def path_attention(
    q_BTHK: Tensor,
    k_BTGK: Tensor,
    v_BSGK: Tensor,
    w_BTGK: Tensor,
    beta_BTG: Tensor,
    past_BPGK: Tensor | None = None,
    decay_BSH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """PaTH attention, by the fastest form that fits.

    Args:
        q_BTHK: the queries of the new tokens.
        k_BTGK: the keys of the new tokens; query head h reads key/value head h // R.
        v_BSGK: the values of all tokens, earlier ones first.
        w_BTGK: the directions of the new tokens, of length one at most.
        beta_BTG: the strengths of the new tokens, from 0 to 2.
        past_BPGK: the keys of earlier tokens, transformed by all tokens up to the last earlier one; None if there are
            none.
        decay_BSH: the cumulative sums of log gates up to and with each token, float32 or wider; None without gates.

    Returns:
        `y_BTHK` in the dtype of `v_BSGK`, and the keys (B, S, G, K), transformed by all tokens up to the last one,
        float32 or wider. All is computed in float32 (float64 if `v_BSGK` is), under autocast too. Counts as 4 S K FLOPs
        per query head and 4 S K per key/value head and token: scores and values, and the change of each key.
    """
    B, T, H, K = q_BTHK.shape
    S, G = v_BSGK.shape[1:3]
    form = dispatch(T, naive_path_attention, chunked_path_attention, shortest=SHORTEST_CHUNKED)
    with counted_as(4 * B * T * S * K * (H + G)):
        return form(q_BTHK, k_BTGK, v_BSGK, w_BTGK, beta_BTG, past_BPGK, decay_BSH)


def _padded(x_BT: Tensor, n: int) -> Tensor:
    """Returns (B, T, ...) with n zeros after the T positions."""
    return F.pad(x_BT, (0, 0) * (x_BT.ndim - 2) + (0, n)) if n else x_BT
