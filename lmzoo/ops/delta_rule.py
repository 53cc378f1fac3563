"""The delta rule: a matrix memory in which a write replaces what is stored under its key.

Yang et al. 2024, arXiv 2406.06484. For every batch row and head, with keys and values as columns and a memory S that is
a matrix (V, K),

    S_t = S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T
    y_t = S_t q_t

For a unit key, beta = 0 leaves the memory as it is, beta = 1 replaces the value that is read under k_t by v_t, and
beta = 2 gives the transition the eigenvalue -1 (Grazzi et al. 2024, arXiv 2411.12537). The caller scales the queries
and normalizes the keys.

The state is stored transposed, (K, V), and vectors are rows: y_t = q_t S_t. With u_t = beta_t (v_t - k_t S_{t-1}) the
rule is S_t = S_{t-1} + k_t^T u_t. `naive_delta_rule` computes this step by step.

`chunked_delta_rule` computes a chunk at once, by `lmzoo.ops.delta_chunks`.

Legend: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.delta_chunks import delta_chunks
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 6  # for shorter sequences the loop needs fewer calls


def naive_delta_rule(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, beta_BTH: Tensor, state_BHKV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `delta_rule`."""
    q, k, v, beta, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, beta_BTH, state_BHKV)
    ys = []
    for q_BHK, k_BHK, v_BHV, beta_BH in zip(q.unbind(1), k.unbind(1), v.unbind(1), beta.unbind(1), strict=True):
        old_BHV = (k_BHK[..., None] * S_BHKV).sum(dim=-2)
        u_BHV = beta_BH[..., None] * (v_BHV - old_BHV)
        S_BHKV = S_BHKV + k_BHK[..., None] * u_BHV[..., None, :]
        ys.append((q_BHK[..., None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BHKV


def chunked_delta_rule(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, beta_BTH: Tensor, state_BHKV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `delta_rule`."""
    q, k, v, beta, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, beta_BTH, state_BHKV)
    y_BTHV, S_BHKV = delta_chunks(q, k, v, beta, None, S_BHKV)
    return y_BTHV.to(v_BTHV.dtype), S_BHKV


def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    state_BHKV: Tensor | None = None,
    *,
    largest_beta: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """The delta rule, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTHK: the keys; the memory stays bounded if beta * |k|^2 is at most 2.
        v_BTHV: the values.
        beta_BTH: the strength of each write, from 0 to 1, or to 2 for negative eigenvalues.
        state_BHKV: the memory to start from, or None for zeros.
        largest_beta: an upper bound of beta: up to 1, a kernel in bfloat16 is precise enough.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory (B, H, K, V). Computation and memory are float32 whatever
        the dtype of the input (float64 if `v_BTHV` is), under autocast too; for bfloat16 on a GPU, a kernel may
        multiply in bfloat16 (`lmzoo.ops.kernels`). Counts as 6 K V FLOPs per token and head: to read under the key, to
        write, and to read under the query takes K V multiply-adds each.
    """
    B, T, H, V = v_BTHV.shape
    kernel = find_kernel("delta_rule", q_BTHK, k_BTHK, v_BTHV, largest_beta=largest_beta)
    form = dispatch(T, naive_delta_rule, chunked_delta_rule, shortest=SHORTEST_CHUNKED, kernel=kernel)
    with counted_as(6 * B * T * H * k_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTHK, v_BTHV, beta_BTH, state_BHKV)


def _wide_inputs(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state_BHKV: Tensor | None) -> tuple[Tensor, ...]:
    """Convert all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(v.dtype)
    B, _, H, K = k.shape
    state_BHKV = v.new_zeros(B, H, K, v.shape[-1]) if state_BHKV is None else state_BHKV
    return tuple(x.to(dtype) for x in (q, k, v, beta, state_BHKV))
