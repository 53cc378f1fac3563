"""Gated linear attention: a matrix memory that decays and to which every token adds its value under its key.

Katharopoulos et al. 2020 (arXiv 2006.16236, no decay), Sun et al. 2023 (RetNet, arXiv 2307.08621, one fixed decay for
each head), Dao & Gu 2024 (Mamba-2, arXiv 2405.21060, one decay for each head and token), Yang et al. 2024 (GLA, arXiv
2312.06635, one decay for each key channel and token). For every batch row and head, with vectors as rows and a memory
S that is a matrix (K, V),

    S_t = diag(a_t) S_{t-1} + k_t^T v_t
    y_t = q_t S_t

How to call it: `y, state = gated_linear_attention(q, k, v, log_decay, state)`. `log_decay` is log a_t, at most zero, of
shape (B, T, H, K), or (B, T, H, 1) for one decay per head; expand constants, `log_decay_H1.expand(B, T, -1, -1)`.
Without decays pass None. The caller scales the queries. Heads may share queries and keys in groups, as in Mamba-2: then
q and k have fewer heads than v, each for as many heads of v in sequence.

`naive_gated_linear_attention` computes this step by step. `chunked_gated_linear_attention` computes a chunk at once:
with one decay for all channels by `lmzoo.ops.linear_chunks`, with a decay for each by `lmzoo.ops.decayed_memory`.

Legend: B batch, T time, H heads, G heads of queries and keys, K key width, V value width, A width of the decays, which
is K or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.decayed_memory import decayed_memory
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.linear_chunks import linear_chunks
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 6  # for shorter sequences the loop needs fewer calls
SHORTEST_LARGE = 4  # the same with large memories, where a step of the loop takes longer
LARGE = 1 << 14  # numbers in the memories of all heads
SHORTEST_PER_CHANNEL = 12  # the same with a decay for each key channel


def naive_gated_linear_attention(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `gated_linear_attention`."""
    q, k, v, log_decay, S_BHKV = _wide_inputs(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHA, state_BHKV)
    q, k = _for_each_head(q, v), _for_each_head(k, v)
    if log_decay is None:
        log_decay = v.new_zeros(*v.shape[:3], 1)
    ys = []
    steps = (x.unbind(1) for x in (q, k, v, log_decay.exp()))
    for q_BHK, k_BHK, v_BHV, a_BHA in zip(*steps, strict=True):
        S_BHKV = a_BHA[..., None] * S_BHKV + k_BHK[..., None] * v_BHV[..., None, :]
        ys.append((q_BHK[..., None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BHKV


def chunked_gated_linear_attention(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `gated_linear_attention`."""
    q, k, v, log_decay, S_BHKV = _wide_inputs(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHA, state_BHKV)
    if log_decay is None:
        y_BTHV, S_BHKV = linear_chunks(q, k, v, None, S_BHKV)
    elif log_decay.shape[-1] == 1:
        y_BTHV, S_BHKV = linear_chunks(q, k, v, log_decay.squeeze(-1), S_BHKV)
    else:
        y_BTHV, S_BHKV = decayed_memory(_for_each_head(q, v), _for_each_head(k, v), v, log_decay, S_BHKV)
    return y_BTHV.to(v_BTHV.dtype), S_BHKV


def gated_linear_attention(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, by the fastest form that fits.

    Args:
        q_BTGK: the queries, used as they are: the caller scales them. G divides H.
        k_BTGK: the keys.
        v_BTHV: the values.
        log_decay_BTHA: the logarithms of the decays, from minus infinity to 0; A is K, or 1 for one decay per head.
            None: nothing decays.
        state_BHKV: the memory to start from, or None for zeros.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory (B, H, K, V). Computation and memory are float32 whatever
        the dtype of the input (float64 if `v_BTHV` is), under autocast too; for bfloat16 on a GPU, a kernel may
        multiply in bfloat16 (`lmzoo.ops.kernels`). Counts as 4 K V FLOPs per token and head: to write and to read takes
        K V multiply-adds each.
    """
    (B, T, H, V), K = v_BTHV.shape, k_BTGK.shape[-1]
    shortest = SHORTEST_LARGE if H * K * V >= LARGE else SHORTEST_CHUNKED
    if log_decay_BTHA is not None and log_decay_BTHA.shape[-1] > 1:
        shortest = SHORTEST_PER_CHANNEL
    kernel = find_kernel("gated_linear_attention", q_BTGK, k_BTGK, v_BTHV)
    if kernel.form is not None:
        q_BTGK, k_BTGK = (_for_each_head(x, v_BTHV) for x in (q_BTGK, k_BTGK))
    form = dispatch(T, naive_gated_linear_attention, chunked_gated_linear_attention, shortest=shortest, kernel=kernel)
    with counted_as(4 * B * T * H * K * V):
        return form(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHA, state_BHKV)


def _for_each_head(x_BTGK: Tensor, v_BTHV: Tensor) -> Tensor:
    """Repeats the queries or keys that heads share."""
    G, H = x_BTGK.shape[2], v_BTHV.shape[2]
    return x_BTGK if G == H else x_BTGK.repeat_interleave(H // G, dim=2)


def _wide_inputs(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state_BHKV: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    (B, _, H, V), K = v.shape, k.shape[-1]
    state_BHKV = v.new_zeros(B, H, K, V) if state_BHKV is None else state_BHKV
    dtype = wide_dtype(v.dtype)
    log_decay = None if log_decay is None else log_decay.to(dtype)
    return q.to(dtype), k.to(dtype), v.to(dtype), log_decay, state_BHKV.to(dtype)
