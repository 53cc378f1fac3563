"""The generalized delta rule: a matrix memory whose transition is a diagonal plus a matrix of rank one.

The recurrence of RWKV-7 (Peng et al. 2025, arXiv 2503.14456). For every batch row and head, with a memory S of keys by
values (K, V) and vectors as columns,

    S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T       w = exp(log_w), from 0 to 1 for each key feature
    y_t = S_t^T r_t

The delta rule is the case w = 1, a = -k, b = beta k. `naive_dplr` computes this step by step.

`chunked_dplr` computes a chunk at once: it is the recurrence of `lmzoo.ops.decayed_memory`, with r as its queries.

Legend: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.decayed_memory import decayed_memory
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 6  # for shorter sequences the loop needs fewer calls


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
    r, log_w, k, v, a, b, S_BHKV = _wide_inputs(
        r_BTHK, log_w_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, state_BHKV=state_BHKV
    )
    y_BTHV, S_BHKV = decayed_memory(r, k, v, log_w, S_BHKV, a, b)
    return y_BTHV.to(v_BTHV.dtype), S_BHKV


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
        the dtype of the input (float64 if `v_BTHV` is), under autocast too; for bfloat16 on a GPU, a kernel may
        multiply in bfloat16 (`lmzoo.ops.kernels`). Counts as 8 K V FLOPs per token and head: to read under a, to write
        the correction, to write v, and to read under r takes K V multiply-adds each.
    """
    B, T, H, V = v_BTHV.shape
    kernel = find_kernel("dplr", r_BTHK, k_BTHK, v_BTHV)
    form = dispatch(T, naive_dplr, chunked_dplr, shortest=SHORTEST_CHUNKED, kernel=kernel)
    with counted_as(8 * B * T * H * k_BTHK.shape[-1] * V):
        return form(r_BTHK, log_w_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK, state_BHKV)


def _wide_inputs(*inputs: Tensor, state_BHKV: Tensor | None) -> tuple[Tensor, ...]:
    """Convert all inputs to float32 or wider; a missing state becomes zeros."""
    _, _, k_BTHK, v_BTHV, _, _ = inputs
    if state_BHKV is None:
        state_BHKV = v_BTHV.new_zeros(k_BTHK.shape[0], *k_BTHK.shape[2:], v_BTHV.shape[-1])
    return tuple(x.to(wide_dtype(v_BTHV.dtype)) for x in (*inputs, state_BHKV))
