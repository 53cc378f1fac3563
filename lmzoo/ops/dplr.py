"""The generalized delta rule: a matrix memory whose transition is a diagonal plus a matrix of rank one.

The recurrence of RWKV-7 (Peng et al. 2025, arXiv 2503.14456). For every batch row and head, with a memory S of keys by
values (K, V) and vectors as columns,

    S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T       w = exp(log_w), from 0 to 1 for each key feature
    y_t = S_t^T r_t

The delta rule is the case w = 1, a = -k, b = beta k. `naive_dplr` computes this step by step.

`chunked_dplr` computes a chunk at once. Let S be the memory before the chunk (position -1) and D[t, s] the product of
the decays of the positions s + 1 ... t, one number for each key feature. With u_t^T = a_t^T S_{t-1}, every memory of
the chunk is a sum of decayed outer products, so the u_t solve a unit lower-triangular system:

    u_t = (a_t D[t-1, -1])^T S + sum_{s<t} (a_t^T D[t-1, s] b_s) u_s + (a_t^T D[t-1, s] k_s) v_s
    y_t = (r_t D[t, -1])^T S   + sum_{s<=t} (r_t^T D[t, s] b_s) u_s + (r_t^T D[t, s] k_s) v_s

The system does not contain S: it is solved for all chunks together. The log of D is summed over exactly the positions
s + 1 ... t, never computed as a difference of longer sums, so no exponent is positive and log_w may be -infinity.

Legend: B batch, T time, H heads, K key width, V value width; inside the chunked form N chunks, M = B * H, C positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.gated_linear_attention import chunk_length, in_chunks, scores_in_chunks
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 8  # for shorter sequences the loop needs fewer calls


def naive_dplr(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `dplr`."""
    *inputs, S_BHKV = _wide_inputs(r_BTHK, log_w_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, state_BHKV=state_BHKV)
    ys = []
    for r, log_w, k, v, a, b in zip(*(x.unbind(1) for x in inputs), strict=True):
        u_BHV = (a[..., None] * S_BHKV).sum(dim=-2)
        S_BHKV = log_w.exp()[..., None] * S_BHKV + b[..., None] * u_BHV[..., None, :] + k[..., None] * v[..., None, :]
        ys.append((r[..., None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BHKV


def chunked_dplr(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `dplr`."""
    (T, H), K = v_BTHV.shape[1:3], k_BTHK.shape[-1]
    *inputs, S_BHKV = _wide_inputs(r_BTHK, log_w_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, state_BHKV=state_BHKV)
    r, log_w, k, v, a, b = (in_chunks(x, chunk_length(T)) for x in inputs)  # (N, M, C, K or V) each
    S_MKV = S_BHKV.flatten(0, 1)
    ys = []
    with torch.autocast(v_BTHV.device.type, enabled=False):  # autocast would compute the products in its own dtype
        # Queries a at t see the decays up to t - 1: they are scored one position earlier, and the scores moved back.
        earlier_a = F.pad(a[:, :, 1:], (0, 0, 0, 1))
        scores, start_NMCK, to_end_NMCK = scores_in_chunks((r, earlier_a), (k, b), log_w)
        (rk, rb), (ak, ab) = scores[0], F.pad(scores[1, ..., :-1, :], (0, 0, 1, 0))  # (N, M, C, C)
        start_before = F.pad(start_NMCK[:, :, :-1], (0, 0, 1, 0), value=1)
        solution = torch.linalg.solve_triangular(
            -ab, torch.cat([a * start_before, ak @ v], dim=-1), upper=False, unitriangular=True
        )
        of_S, of_v = solution.split([K, v.shape[-1]], dim=-1)  # u = of_S S + of_v
        read_S, read_v = r * start_NMCK, rk @ v  # y = read_S S + rb u + read_v
        kept, written_u, written_v = start_NMCK[:, :, -1, :, None], (b * to_end_NMCK).mT, (k * to_end_NMCK).mT @ v
        parts = (of_S, of_v, read_S, rb, read_v, kept, written_u, written_v)
        for of_S, of_v, read_S, rb, read_v, kept, written_u, written_v in zip(*map(torch.unbind, parts), strict=True):
            u_MCV = of_S @ S_MKV + of_v
            ys.append(read_S @ S_MKV + rb @ u_MCV + read_v)
            S_MKV = kept * S_MKV + written_u @ u_MCV + written_v
    y_BTHV = rearrange(torch.stack(ys), "n (b h) c v -> b (n c) h v", h=H)[:, :T]
    return y_BTHV.to(v_BTHV.dtype), S_MKV.unflatten(0, S_BHKV.shape[:2])


def dplr(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The generalized delta rule, by the fastest form that fits.

    Args:
        r_BTHK: the queries, used as they are.
        log_w_BTHK: the logs of the decays, at most 0; -infinity erases a key feature.
        k_BTHK: the keys of the values that are added.
        v_BTHV: the values.
        a_BTHK: the keys under which the memory is read for the correction.
        b_BTHK: the keys under which the correction is written.
        state_BHKV: the memory to start from, or None for zeros.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory (B, H, K, V). Computation and memory are float32 whatever
        the dtype of the input (float64 if `v_BTHV` is), under autocast too. Counts as 8 K V FLOPs per token and head:
        to read under a, to write the correction, to write v, and to read under r takes K V multiply-adds each.
    """
    B, T, H, V = v_BTHV.shape
    form = dispatch(T, naive_dplr, chunked_dplr, shortest=SHORTEST_CHUNKED)
    with counted_as(8 * B * T * H * k_BTHK.shape[-1] * V):
        return form(r_BTHK, log_w_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, state_BHKV)


def _wide_inputs(*inputs: Tensor, state_BHKV: Tensor | None) -> tuple[Tensor, ...]:
    """Convert all inputs to float32 or wider; a missing state becomes zeros."""
    _, _, k_BTHK, v_BTHV, _, _ = inputs
    if state_BHKV is None:
        state_BHKV = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    return tuple(x.to(wide_dtype(v_BTHV.dtype)) for x in (*inputs, state_BHKV))
