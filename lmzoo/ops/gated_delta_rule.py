"""The delta rule with decays: a matrix memory that forgets, and in which a write replaces what is stored under its key.

Yang et al. 2024 (Gated DeltaNet, arXiv 2412.06464), with one decay per head and token, and Kimi Team 2025 (Kimi delta
attention, arXiv 2510.26692), with one decay per key channel and token. For every batch row and head, with vectors as
rows and a memory S that is a matrix (K, V),

    u_t = beta_t (v_t - k_t diag(a_t) S_{t-1})
    S_t = diag(a_t) S_{t-1} + k_t^T u_t
    y_t = q_t S_t

The memory first decays; then the value that is read under the key is moved towards v_t. Without decays this is
`lmzoo.ops.delta_rule`. The caller scales the queries and normalizes the keys. `naive_gated_delta_rule` computes this
step by step.

`chunked_gated_delta_rule` computes a chunk at once: with one decay for all channels by `lmzoo.ops.delta_chunks`, with a
decay for each channel by `lmzoo.ops.decayed_memory`, with beta k as its keys and -k as its a, which reads the decayed
memory.

Legend: B batch, T time, H heads, K key width, V value width, A width of the decays, K or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.decayed_memory import decayed_memory
from lmzoo.ops.delta_chunks import delta_chunks
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 6  # for shorter sequences the loop needs fewer calls


def naive_gated_delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTHA: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `gated_delta_rule`."""
    *inputs, log_decay, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTHA, state_BHKV)
    ys = []
    steps = (x.unbind(1) for x in (*inputs, log_decay.exp()))
    for q_BHK, k_BHK, v_BHV, beta_BH, a_BHA in zip(*steps, strict=True):
        S_BHKV = a_BHA[..., None] * S_BHKV
        old_BHV = (k_BHK[..., None] * S_BHKV).sum(dim=-2)
        u_BHV = beta_BH[..., None] * (v_BHV - old_BHV)
        S_BHKV = S_BHKV + k_BHK[..., None] * u_BHV[..., None, :]
        ys.append((q_BHK[..., None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BHKV


def chunked_gated_delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTHA: Tensor,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `gated_delta_rule`."""
    q, k, v, beta, log_decay, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTHA, state_BHKV)
    if log_decay.shape[-1] > 1:
        y_BTHV, S_BHKV = decayed_memory(q, beta[..., None] * k, v, log_decay, S_BHKV, -k, a_reads_decayed=True)
    else:
        y_BTHV, S_BHKV = delta_chunks(q, k, v, beta, log_decay.squeeze(-1), S_BHKV)
    return y_BTHV.to(v_BTHV.dtype), S_BHKV


def gated_delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTHA: Tensor,
    state_BHKV: Tensor | None = None,
    *,
    largest_beta: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """The delta rule with decays, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTHK: the keys; the memory stays bounded if beta * |k|^2 is at most 2.
        v_BTHV: the values.
        beta_BTH: the strength of each write, from 0 to 1, or to 2 for negative eigenvalues.
        log_decay_BTHA: the logarithms of the decays, from minus infinity to 0; A is K, or 1 for one decay per head.
        state_BHKV: the memory to start from, or None for zeros.
        largest_beta: an upper bound of beta: up to 1, a kernel in bfloat16 is precise enough.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory (B, H, K, V). Computation and memory are float32 whatever
        the dtype of the input (float64 if `v_BTHV` is), under autocast too; for bfloat16 on a GPU, a kernel may
        multiply in bfloat16 (`lmzoo.ops.kernels`). Counts as 6 K V FLOPs per token and head: to read under the key, to
        write, and to read under the query takes K V multiply-adds each.
    """
    B, T, H, V = v_BTHV.shape
    kernel = find_kernel("gated_delta_rule", q_BTHK, k_BTHK, v_BTHV, largest_beta=largest_beta)
    form = dispatch(T, naive_gated_delta_rule, chunked_gated_delta_rule, shortest=SHORTEST_CHUNKED, kernel=kernel)
    with counted_as(6 * B * T * H * k_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTHA, state_BHKV)


def _wide_inputs(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state_BHKV: Tensor | None
) -> tuple[Tensor, ...]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    B, _, H, K = k.shape
    state_BHKV = v.new_zeros(B, H, K, v.shape[-1]) if state_BHKV is None else state_BHKV
    dtype = wide_dtype(v.dtype)
    return tuple(x.to(dtype) for x in (q, k, v, beta, log_decay, state_BHKV))
