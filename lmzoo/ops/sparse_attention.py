"""Attention that reads only chosen keys, and the two ways to choose them: an indexer, and compressed blocks.

- `index_scores`: the scores of DeepSeek-V3.2's lightning indexer (arXiv 2512.02556), by which keys are chosen
- `block_attention`: attention to one compressed key per block, whose weights choose blocks (Native Sparse Attention,
  Yuan et al. 2025, arXiv 2502.11089), and `choose_blocks`, which chooses them
- `sparse_attention`: softmax attention to the chosen keys, and `mean_weights`: the weights of these keys

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

from lmzoo.ops.attention import fused_attention
from lmzoo.ops.counting import counted_as
from lmzoo.ops.precision import wide, without_autocast
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
    with without_autocast(q_BTIK), counted_as(2 * B * T * S * n_heads * (K + 1)):
        scores_BTIS = torch.relu(wide(q_BTIK).flatten(1, 2) @ wide(k_BSK).mT).unflatten(1, (T, n_heads))
        scores_BTS = (wide(w_BTI)[:, :, None] @ scores_BTIS)[:, :, 0]
    if T == 1:
        return scores_BTS
    later_TS = torch.ones(T, S, dtype=torch.bool, device=q_BTIK.device).triu(S - T + 1)
    return scores_BTS.masked_fill_(later_TS, -math.inf)


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
    with counted_as(2 * B * T * H * M * (K + V)):
        scores_BGRTM = wide(torch.einsum("btgrk,bmgk->bgrtm", q_BTHK.unflatten(2, (G, -1)), k_BMGK)) / math.sqrt(K)
        if T == 1:  # the newest token, which sees all blocks
            weights_BGRTM = scores_BGRTM.softmax(dim=-1)
        else:
            ends_M = torch.arange(1, M + 1, device=q_BTHK.device) * block_length
            seen_TM = ends_M <= torch.arange(position + 1, position + T + 1, device=q_BTHK.device)[:, None]
            # The lowest number and not -inf: the softmax of a row without any block must have a gradient of zero, not
            # NaN.
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
    own_T1 = torch.arange(position, position + T, device=p_BTGM.device)[:, None] // block_length
    behind_TM = own_T1 - torch.arange(blocks, device=p_BTGM.device)
    forced_TM = behind_TM <= 1  # later blocks are left out below
    forced_TM[:, 0] = True
    scores_BTGM = F.pad(p_BTGM.detach(), (0, blocks - p_BTGM.shape[-1])).masked_fill(forced_TM[:, None], math.inf)
    if T > 1:
        scores_BTGM = scores_BTGM.masked_fill_((behind_TM < 0)[:, None], -math.inf)
    _, chosen_BTGN = stable_topk(scores_BTGM, min(FORCED + n, blocks))
    within_C = torch.arange(block_length, device=p_BTGM.device)
    return (chosen_BTGN[..., None] * block_length + within_C).flatten(-2)


def naive_sparse_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor) -> Tensor:
    """The definition, one query and key head at a time; arguments and result as in `sparse_attention`."""
    (T, H), (S, G, V), E = q_BTHK.shape[1:3], v_BSGV.shape[1:], chosen_BTEN.shape[2]
    R = H // G
    y_BTHV = torch.zeros(*q_BTHK.shape[:3], V, dtype=wide(v_BSGV).dtype, device=v_BSGV.device)
    for t in range(T):
        for g in range(G):
            heads = slice(g * R, (g + 1) * R)
            index_BN = chosen_BTEN[:, t, g * E // G]
            w_BRN = _weights_of_query(q_BTHK[:, t, heads], k_BSGK[:, :, g], index_BN, S - T + t)
            index_BN1 = index_BN.clamp(max=S - 1)[..., None]
            y_BTHV[:, t, heads] = w_BRN @ wide(v_BSGV[:, :, g]).gather(1, index_BN1.expand(-1, -1, V))
    return y_BTHV.to(v_BSGV.dtype)


def masked_sparse_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor) -> Tensor:
    """Computes all scores and masks those of other keys: for many queries, which together read most keys."""
    (B, T, H), (S, G), E = q_BTHK.shape[:3], k_BSGK.shape[1:3], chosen_BTEN.shape[2]
    # Positions from S on are marked in a column that is cut off.
    marks_BETS = torch.zeros(B, E, T, S + 1, dtype=torch.bool, device=q_BTHK.device)
    marks_BETS = marks_BETS.scatter_(3, chosen_BTEN.transpose(1, 2).clamp(max=S), True)
    allowed_BETS = marks_BETS[..., :S].tril(S - T)
    if 1 < E < H:
        allowed_BETS = allowed_BETS.repeat_interleave(H // G, dim=1)
    q_BHTK, k_BGSK, v_BGSV = (x.transpose(1, 2) for x in (q_BTHK, k_BSGK, v_BSGV))
    return fused_attention(q_BHTK, k_BGSK, v_BGSV, attn_mask=allowed_BETS).transpose(1, 2)


def gathered_sparse_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor) -> Tensor:
    """Copies the chosen keys and values of each query: for a decoding step, which then does not read the others."""
    (B, T, H), (S, G), N = q_BTHK.shape[:3], k_BSGK.shape[1:3], chosen_BTEN.shape[-1]
    index_BXE1 = chosen_BTEN.transpose(2, 3).flatten(1, 2).clamp(max=S - 1)[..., None]  # X = T N
    # Each query is a row of a batch (B T).
    k_ZGNK, v_ZGNV = (
        x.gather(1, index_BXE1.expand(-1, -1, G, x.shape[-1])).view(B * T, N, G, -1).transpose(1, 2)
        for x in (k_BSGK, v_BSGV)
    )
    q_ZGRK = q_BTHK.reshape(B * T, G, H // G, -1)
    seen_ZE1N = _seen(chosen_BTEN, T, S).flatten(0, 1)[:, :, None]
    return fused_attention(q_ZGRK, k_ZGNK, v_ZGNV, attn_mask=seen_ZE1N).reshape(B, T, H, -1)


def sparse_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor, chosen_BTEN: Tensor) -> Tensor:
    """Softmax attention, scaled by 1/sqrt(K), to the keys at the chosen positions, by the form that fits.

    Each query has E sets of N different positions: one for all heads (E = 1), or one for each key head (E = G).
    Positions after that of the query are ignored; at least one must not be.

    Returns (B, T, H, V). Counts as 2 N (K + V) FLOPs per query head and token.
    """
    (B, T, H, K), V, N = q_BTHK.shape, v_BSGV.shape[-1], chosen_BTEN.shape[-1]
    form = gathered_sparse_attention if T == 1 else masked_sparse_attention
    with counted_as(2 * B * T * H * N * (K + V)):
        return form(q_BTHK, k_BSGK, v_BSGV, chosen_BTEN)


def naive_mean_weights(q_BTHK: Tensor, k_BSGK: Tensor, chosen_BTN: Tensor) -> Tensor:
    """The definition, one query at a time; arguments and result as in `mean_weights`."""
    (T, H), (S, G) = q_BTHK.shape[1:3], k_BSGK.shape[1:3]
    rows = []
    for t in range(T):
        q_BGRK = q_BTHK[:, t].unflatten(1, (G, H // G))
        each = [_weights_of_query(q_BGRK[:, g], k_BSGK[:, :, g], chosen_BTN[:, t], S - T + t) for g in range(G)]
        rows.append(torch.cat(each, dim=1).mean(dim=1))
    return torch.stack(rows, dim=1)


def mean_weights(q_BTHK: Tensor, k_BSGK: Tensor, chosen_BTN: Tensor) -> Tensor:
    """The weights that `sparse_attention` gives to N chosen keys, as means over all heads: (B, T, N), float32 or wider.

    Counts as 2 N K FLOPs per query head and token.
    """
    (B, T, H, K), (S, G), N = q_BTHK.shape, k_BSGK.shape[1:3], chosen_BTN.shape[-1]
    with counted_as(2 * B * T * H * N * K):
        scores_BTGRS = torch.einsum("btgrk,bsgk->btgrs", q_BTHK.unflatten(2, (G, -1)), k_BSGK)
    index_BTHN = chosen_BTN[:, :, None].clamp(max=S - 1).expand(-1, -1, H, -1)
    scores_BTHN = wide(scores_BTGRS.flatten(2, 3).gather(3, index_BTHN)) / math.sqrt(K)
    unseen_BT1N = ~_seen(chosen_BTN[:, :, None], T, S)
    return scores_BTHN.masked_fill(unseen_BT1N, -math.inf).softmax(dim=-1).mean(dim=2)


def _weights_of_query(q_BRK: Tensor, k_BSK: Tensor, index_BN: Tensor, position: int) -> Tensor:
    """Returns the weights (B, R, N) of the keys at `index_BN` for the query at `position`; 0 for later keys."""
    index_BN1 = index_BN.clamp(max=k_BSK.shape[1] - 1)[..., None]
    k_BNK = wide(k_BSK).gather(1, index_BN1.expand(-1, -1, k_BSK.shape[-1]))
    scores_BRN = wide(q_BRK) @ k_BNK.mT / math.sqrt(q_BRK.shape[-1])
    return scores_BRN.masked_fill(index_BN[:, None] > position, -math.inf).softmax(dim=-1)


def _seen(chosen_BTEN: Tensor, T: int, S: int) -> Tensor:
    """Returns a mask (B, T, E, N) of the chosen positions that are not after the query's."""
    return chosen_BTEN <= torch.arange(S - T, S, device=chosen_BTEN.device)[:, None, None]
