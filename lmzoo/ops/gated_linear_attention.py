"""Gated linear attention: a matrix memory that decays and to which every token adds its value under its key.

Katharopoulos et al. 2020 (arXiv 2006.16236, no decay), Sun et al. 2023 (RetNet, arXiv 2307.08621, one fixed decay for
each head), Dao & Gu 2024 (Mamba-2, arXiv 2405.21060, one decay for each head and token), Yang et al. 2024 (GLA, arXiv
2312.06635, one decay for each key channel and token). For every batch row and head, with vectors as rows and a memory
S that is a matrix (K, V),

    S_t = diag(a_t) S_{t-1} + k_t^T v_t
    y_t = q_t S_t

How to call it: `y, state = gated_linear_attention(q, k, v, log_decay, state)`. `log_decay` is log a_t, at most zero, of
shape (B, T, H, K), or (B, T, H, 1) for one decay per head; expand constants, `log_decay_H1.expand(B, T, -1, -1)`.
Without decays pass None. The caller scales the queries. Keys and queries that several heads share are expanded too.

`naive_gated_linear_attention` computes this step by step.

`chunked_gated_linear_attention` splits the sequence into chunks. With one decay for all channels, let S be the memory
before the chunk, `since_t` the product of the decays from the chunk's first position to t, and `until_s` the product of
the decays after s to the chunk's last position. With the scores P of `lmzoo.ops.decayed_scores`,
P_ts = (q_t . k_s) a_{s+1} ... a_t for s <= t,

    Y = (Q * since) S + P V
    next S = since_C S + (K * until)^T V

With a decay for each channel, `lmzoo.ops.decayed_memory` computes the chunks, in one operator.

Legend: B batch, T time, H heads, K key width, V value width, A width of the decays, K or 1; inside the chunked form N
chunks, M = B * H, C positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.decayed_memory import decayed_memory
from lmzoo.ops.decayed_scores import decayed_scores
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.precision import wide_dtype

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 4  # for shorter sequences the loop needs fewer calls
SHORTEST_PER_CHANNEL = 16  # the same with a decay for each key channel


def naive_gated_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `gated_linear_attention`."""
    q, k, v, log_decay, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHA, state_BHKV)
    ys = []
    steps = (x.unbind(1) for x in (q, k, v, log_decay.exp()))
    for q_BHK, k_BHK, v_BHV, a_BHA in zip(*steps, strict=True):
        S_BHKV = a_BHA[..., None] * S_BHKV + k_BHK[..., None] * v_BHV[..., None, :]
        ys.append((q_BHK[..., None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BHKV


def chunked_gated_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks of `CHUNK_LENGTH` positions; arguments and results as in `gated_linear_attention`."""
    T, H = v_BTHV.shape[1:3]
    *inputs, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHA, state_BHKV)
    q, k, v, log_decay = inputs
    if log_decay.shape[-1] > 1:
        y_BTHV, S_BHKV = decayed_memory(q, k, v, log_decay, S_BHKV)
        return y_BTHV.to(v_BTHV.dtype), S_BHKV
    q_NMCK, k_NMCK, v_NMCV, log_decay_NMC1 = (in_chunks(x, min(CHUNK_LENGTH, T)) for x in inputs)
    S_MKV = S_BHKV.flatten(0, 1)
    ys = []
    with torch.autocast(v_BTHV.device.type, enabled=False):  # autocast would compute the products in its own dtype
        scores_NMCC, since_NMC1, until_NMC1 = decayed_scores(q_NMCK, k_NMCK, log_decay_NMC1)
        inside_NMCV = scores_NMCC @ v_NMCV
        written_NMKV = (k_NMCK * until_NMC1).mT @ v_NMCV
        read_NMCK, kept_NM11 = q_NMCK * since_NMC1, since_NMC1[..., -1:, :]
        chunks = (x.unbind(0) for x in (read_NMCK, inside_NMCV, kept_NM11, written_NMKV))
        for read_MCK, inside_MCV, kept_M11, written_MKV in zip(*chunks, strict=True):
            ys.append(torch.baddbmm(inside_MCV, read_MCK, S_MKV))
            S_MKV = torch.addcmul(written_MKV, kept_M11, S_MKV)
    y_BTHV = rearrange(torch.stack(ys), "n (b h) c v -> b (n c) h v", h=H)[:, :T]
    return y_BTHV.to(v_BTHV.dtype), S_MKV.unflatten(0, S_BHKV.shape[:2])


def gated_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTHK: the keys.
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
    B, T, H, V = v_BTHV.shape
    per_channel = log_decay_BTHA is not None and log_decay_BTHA.shape[-1] > 1
    shortest = SHORTEST_PER_CHANNEL if per_channel else SHORTEST_CHUNKED
    kernel = find_kernel("gated_linear_attention", q_BTHK, k_BTHK, v_BTHV)
    form = dispatch(T, naive_gated_linear_attention, chunked_gated_linear_attention, shortest=shortest, kernel=kernel)
    with counted_as(4 * B * T * H * k_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHA, state_BHKV)


def in_chunks(x_BTH: Tensor, C: int) -> Tensor:
    """Rearranges (B, T, H, ...) to (N, B * H, C, ...), with zeros after the end of the last chunk.

    A key of zero and a decay of one, whose logarithm is zero, leave the state as it is.
    """
    missing = -x_BTH.shape[1] % C
    if missing:
        x_BTH = F.pad(x_BTH, (0, 0) * (x_BTH.ndim - 2) + (0, missing))
    return rearrange(x_BTH, "b (n c) h ... -> n (b h) c ...", c=C).contiguous()


def _wide_inputs(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state_BHKV: Tensor | None
) -> tuple[Tensor, ...]:
    """Converts all inputs to float32 or wider; missing decays become ones, and a missing state zeros."""
    B, T, H, K = k.shape
    log_decay = v.new_zeros(B, T, H, 1) if log_decay is None else log_decay
    state_BHKV = v.new_zeros(B, H, K, v.shape[-1]) if state_BHKV is None else state_BHKV
    dtype = wide_dtype(v.dtype)
    return tuple(x.to(dtype) for x in (q, k, v, log_decay, state_BHKV))
