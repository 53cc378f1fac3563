"""Attention that reads only chosen keys, and the two ways to choose them: an indexer, and compressed blocks.

- `index_scores`: the scores of DeepSeek-V3.2's lightning indexer (arXiv 2512.02556), by which keys are chosen
- `block_attention`: attention to one compressed key per block, whose weights choose blocks (Native Sparse Attention,
  Yuan et al. 2025, arXiv 2502.11089), and `choose_blocks`, which chooses them
- `sparse_attention`: softmax attention to the chosen keys

A block is seen once its last token has been read: what is compressed from all of its tokens must not be seen by any of
them but the last. Choices are made by `stable_topk`, so that decoding makes those of the forward pass.

Each has its definition as a loop over queries (`naive_...`). Scores and softmax are computed in float32 or wider.
Legend: B batch, T queries, S keys (the T newest among them), H query heads, G key/value heads, R = H / G, K width of
queries and keys, V width of values, N chosen keys, E sets of choices (1 for all heads, or G), M blocks, I index heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.precision import wide
from lmzoo.ops.stable_topk import stable_topk

FORCED = 3  # blocks that every query reads: the first, the one before its own, and its own


def naive_index_scores(q_BTIK: Tensor, k_BSK: Tensor, w_BTI: Tensor) -> Tensor:
    """The definition, one query at a time; arguments and result as in `index_scores`."""
    T, S = q_BTIK.shape[1], k_BSK.shape[1]
    rows = []
    for t in range(T):
        seen = S - T + t + 1
        scores_BIS = torch.relu(torch.einsum("bik,bsk->bis", wide(q_BTIK[:, t]), wide(k_BSK[:, :seen])))
        scores_BS = (wide(w_BTI[:, t, :, None]) * scores_BIS).sum(dim=1)
        rows.append(F.pad(scores_BS, (0, S - seen), value=-math.inf))
    return torch.stack(rows, dim=1)


def index_scores(q_BTIK: Tensor, k_BSK: Tensor, w_BTI: Tensor) -> Tensor:
    """`sum_i w_i relu(q_i . k_s)` for each query and key: (B, T, S), float32 or wider; -inf for later keys."""
    (B, T, n_heads, K), S = q_BTIK.shape, k_BSK.shape[1]
    with torch.autocast(q_BTIK.device.type, enabled=False), counted_as(2 * B * T * S * n_heads * (K + 1)):
        scores_BTIS = torch.relu(torch.einsum("btik,bsk->btis", wide(q_BTIK), wide(k_BSK)))
        scores_BTS = torch.einsum("bti,btis->bts", wide(w_BTI), scores_BTIS)
    return scores_BTS.masked_fill(_behind(T, S, q_BTIK.device) < 0, -math.inf)


def naive_block_attention(
    q_BTHK: Tensor, k_BMGK: Tensor, v_BMGV: Tensor, block_length: int, position: int
) -> tuple[Tensor, Tensor]:
    """The definition, one query at a time; arguments and results as in `block_attention`."""
    (M, G), R = k_BMGK.shape[1:3], q_BTHK.shape[2] // k_BMGK.shape[2]
    ys, ps = list[Tensor](), list[Tensor]()
    for t in range(q_BTHK.shape[1]):
        seen = min(M, (position + t + 1) // block_length)
        q_BGRK = wide(q_BTHK[:, t].unflatten(1, (G, R)))
        scores_BGRM = torch.einsum("bgrk,bmgk->bgrm", q_BGRK, wide(k_BMGK[:, :seen])) / math.sqrt(q_BTHK.shape[-1])
        weights_BGRM = scores_BGRM.softmax(dim=-1)
        ys.append(torch.einsum("bgrm,bmgv->bgrv", weights_BGRM, wide(v_BMGV[:, :seen])).flatten(1, 2))
        ps.append(F.pad(weights_BGRM.sum(dim=2), (0, M - seen)))
    return torch.stack(ys, dim=1).to(v_BMGV.dtype), torch.stack(ps, dim=1)


def block_attention(
    q_BTHK: Tensor, k_BMGK: Tensor, v_BMGV: Tensor, block_length: int, position: int
) -> tuple[Tensor, Tensor]:
    """Softmax attention to the compressed keys and values of complete blocks.

    The first query is at `position`. A query that no complete block precedes gets zeros.

    Returns the results (B, T, H, V), and the weights of the blocks, summed over the query heads of each key head: (B,
    T, G, M), float32 or wider.
    """
    B, T, H, K = q_BTHK.shape
    M, G, V = v_BMGV.shape[1:]
    ends_M = torch.arange(1, M + 1, device=q_BTHK.device) * block_length
    seen_TM = ends_M <= torch.arange(position + 1, position + T + 1, device=q_BTHK.device)[:, None]
    with counted_as(2 * B * T * H * M * (K + V)):
        scores_BGRTM = wide(torch.einsum("btgrk,bmgk->bgrtm", q_BTHK.unflatten(2, (G, -1)), k_BMGK)) / math.sqrt(K)
        # The lowest number and not -inf: the softmax of a row without any block must have a gradient of zero, not NaN.
        scores_BGRTM = scores_BGRTM.masked_fill(~seen_TM, torch.finfo(scores_BGRTM.dtype).min)
        weights_BGRTM = scores_BGRTM.softmax(dim=-1) * seen_TM
        y_BTGRV = torch.einsum("bgrtm,bmgv->btgrv", weights_BGRTM.to(v_BMGV.dtype), v_BMGV)
    return y_BTGRV.flatten(2, 3), weights_BGRTM.sum(dim=2).transpose(1, 2)


def choose_blocks(p_BTGM: Tensor, n: int, block_length: int, position: int) -> Tensor:
    """Returns the positions of the keys of the chosen blocks, (B, T, G, N), for `sparse_attention`.

    Chosen are the `FORCED` blocks and the `n` other complete blocks with the largest weights `p_BTGM`. There may be
    fewer blocks, and the last one may be incomplete: positions after the query are ignored.
    """
    T = p_BTGM.shape[1]
    blocks = -(-(position + T) // block_length)  # the last one may have no compressed key yet
    block_M = torch.arange(blocks, device=p_BTGM.device)
    own_T1 = torch.arange(position, position + T, device=p_BTGM.device)[:, None] // block_length
    forced_TM = (block_M == 0) | (block_M == own_T1 - 1) | (block_M == own_T1)
    scores_BTGM = F.pad(p_BTGM.detach(), (0, blocks - p_BTGM.shape[-1]))
    scores_BTGM = scores_BTGM.masked_fill((block_M > own_T1)[:, None], -math.inf)
    scores_BTGM = scores_BTGM.masked_fill(forced_TM[:, None], math.inf)
    _, chosen_BTGN = stable_topk(scores_BTGM, min(FORCED + n, blocks))
    within_C = torch.arange(block_length, device=p_BTGM.device)
    return (chosen_BTGN[..., None] * block_length + within_C).flatten(-2)


def naive_sparse_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, one query and key head at a time; arguments and results as in `sparse_attention`."""
    (T, H, K), (S, G, V), E = q_BTHK.shape[1:], v_BSGV.shape[1:], chosen_BTEN.shape[2]
    R = H // G
    y_BTHV = torch.zeros(*q_BTHK.shape[:3], V, dtype=wide(v_BSGV).dtype, device=v_BSGV.device)
    weights_BTEN = torch.zeros(chosen_BTEN.shape, dtype=y_BTHV.dtype, device=v_BSGV.device)
    for t in range(T):
        now = S - T + t
        for g in range(G):
            e, heads = g * E // G, slice(g * R, (g + 1) * R)
            index_BN = chosen_BTEN[:, t, e]
            k_BNK, v_BNV = (
                wide(x[:, :, g]).gather(1, index_BN.clamp(max=now)[..., None].expand(-1, -1, x.shape[-1]))
                for x in (k_BSGK, v_BSGV)
            )
            scores_BRN = torch.einsum("brk,bnk->brn", wide(q_BTHK[:, t, heads]), k_BNK) / math.sqrt(K)
            w_BRN = scores_BRN.masked_fill(index_BN[:, None] > now, -math.inf).softmax(dim=-1)
            y_BTHV[:, t, heads] = torch.einsum("brn,bnv->brv", w_BRN, v_BNV)
            weights_BTEN[:, t, e] += w_BRN.sum(dim=1) * E / H
    return y_BTHV.to(v_BSGV.dtype), weights_BTEN


def masked_sparse_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes all scores and masks those of other keys: for many queries, which together read most keys."""
    T, (S, G), E, K = q_BTHK.shape[1], k_BSGK.shape[1:3], chosen_BTEN.shape[2], q_BTHK.shape[-1]
    behind_TS = _behind(T, S, q_BTHK.device)
    # Positions from S on are marked in a column that is cut off.
    marks_BTES = torch.zeros(*chosen_BTEN.shape[:3], S + 1, dtype=torch.bool, device=q_BTHK.device)
    allowed_BTES = marks_BTES.scatter(3, chosen_BTEN.clamp(max=S), True)[..., :S] & (behind_TS >= 0)[:, None]
    scores_BGRTS = wide(torch.einsum("btgrk,bsgk->bgrts", q_BTHK.unflatten(2, (G, -1)), k_BSGK)) / math.sqrt(K)
    allowed_BE1TS = allowed_BTES.transpose(1, 2)[:, :, None]
    weights_BGRTS = scores_BGRTS.masked_fill(~allowed_BE1TS, -math.inf).softmax(dim=-1)
    y_BTGRV = torch.einsum("bgrts,bsgv->btgrv", weights_BGRTS.to(v_BSGV.dtype), v_BSGV)
    mean_BTES = weights_BGRTS.flatten(1, 2).unflatten(1, (E, -1)).mean(dim=2).transpose(1, 2)
    weights_BTEN = mean_BTES.gather(3, chosen_BTEN.clamp(max=S - 1)) * _seen(chosen_BTEN, T, S)
    return y_BTGRV.flatten(2, 3), weights_BTEN


def gathered_sparse_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor
) -> tuple[Tensor, Tensor]:
    """Copies the chosen keys and values of each query: for a decoding step, which then does not read the others."""
    B, T, _, K = q_BTHK.shape
    S, G = k_BSGK.shape[1:3]
    E, N = chosen_BTEN.shape[2:]
    index_BGX1 = chosen_BTEN.clamp(max=S - 1).transpose(1, 2).expand(B, G if E == 1 else E, T, N).flatten(2)[..., None]
    k_BGTNK, v_BGTNV = (
        x.transpose(1, 2).gather(2, index_BGX1.expand(-1, -1, -1, x.shape[-1])).unflatten(2, (T, N))
        for x in (k_BSGK, v_BSGV)
    )
    scores_BTGRN = wide(torch.einsum("btgrk,bgtnk->btgrn", q_BTHK.unflatten(2, (G, -1)), k_BGTNK)) / math.sqrt(K)
    seen_BTE1N = _seen(chosen_BTEN, T, S)[:, :, :, None]
    weights_BTGRN = scores_BTGRN.masked_fill(~seen_BTE1N, -math.inf).softmax(dim=-1)
    y_BTGRV = torch.einsum("btgrn,bgtnv->btgrv", weights_BTGRN.to(v_BSGV.dtype), v_BGTNV)
    return y_BTGRV.flatten(2, 3), weights_BTGRN.flatten(2, 3).unflatten(2, (E, -1)).mean(dim=3)


def sparse_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention, scaled by 1/sqrt(K), to the keys at the chosen positions, by the form that fits.

    Each query has E sets of N different positions: one for all heads (E = 1), or one for each key head (E = G).
    Positions after that of the query are ignored; at least one must not be.

    Returns the results (B, T, H, V), and the weights of the chosen keys as means over the heads of each set: (B, T, E,
    N), float32 or wider. Counts as 2 N (K + V) FLOPs per query head and token.
    """
    (B, T, H, K), V, N = q_BTHK.shape, v_BSGV.shape[-1], chosen_BTEN.shape[-1]
    form = gathered_sparse_attention if T == 1 else masked_sparse_attention
    with counted_as(2 * B * T * H * N * (K + V)):
        return form(q_BTHK, k_BSGK, v_BSGV, chosen_BTEN)


def _behind(T: int, S: int, device: torch.device) -> Tensor:
    """Returns how far each key is behind each query, (T, S); negative for later keys."""
    return torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)


def _seen(chosen_BTEN: Tensor, T: int, S: int) -> Tensor:
    """Returns a mask (B, T, E, N) of the chosen positions that are not after the query's."""
    return chosen_BTEN <= torch.arange(S - T, S, device=chosen_BTEN.device)[:, None, None]
