"""Delta products: a matrix memory to which every token applies several steps of the delta rule, one after another.

Siems et al. 2025 (DeltaProduct, arXiv 2502.10297). A token has one query and N keys, values and strengths. For every
batch row and head, with vectors as rows and a memory S that is a matrix (K, V),

    S_t0 = a_t S_{t-1}
    S_tn = S_t,n-1 + k_tn^T beta_tn (v_tn - k_tn S_t,n-1)      n = 1 ... N
    S_t  = S_tN
    y_t  = q_t S_t

So the memory decays once per token, before the first of the steps, and is read after the last. The transition of a
token is the product of N matrices I - beta k^T k. For unit keys and betas up to 2 these are reflections and what lies
between them and the identity, and a product of reflections is a rotation; one step cannot rotate. The caller scales the
queries and normalizes the keys. `naive_delta_product` computes this step by step.

`expanded_delta_product` is the delta rule on a sequence of N T positions: the keys, values and strengths of a token in
sequence, its decay at its first position and its query at its last one, with decays of one and queries of zero
elsewhere. So the chunked forms of `lmzoo.ops.delta_rule` and `lmzoo.ops.gated_delta_rule` compute it.

Legend: B batch, T time, N steps per token, H heads, K key width, V value width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.delta_rule import delta_rule
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.gated_delta_rule import gated_delta_rule
from lmzoo.ops.precision import wide_dtype

SHORTEST_EXPANDED = 2  # for a single token the loop needs fewer calls


def naive_delta_product(
    q_BTHK: Tensor,
    k_BTNHK: Tensor,
    v_BTNHV: Tensor,
    beta_BTNH: Tensor,
    log_decay_BTH: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `delta_product`."""
    (B, T, H, K), N, V, dtype = q_BTHK.shape, k_BTNHK.shape[2], v_BTNHV.shape[-1], wide_dtype(v_BTNHV.dtype)
    q_BTHK, k_BTNHK, v, beta_BTNH = (x.to(dtype) for x in (q_BTHK, k_BTNHK, v_BTNHV, beta_BTNH))
    S_BHKV = v.new_zeros(B, H, K, V) if state_BHKV is None else state_BHKV.to(dtype)
    ys = []
    for t in range(T):
        if log_decay_BTH is not None:
            S_BHKV = log_decay_BTH[:, t, :, None, None].to(dtype).exp() * S_BHKV
        for n in range(N):
            k_BHK1 = k_BTNHK[:, t, n, :, :, None]
            old_BHV = (k_BHK1 * S_BHKV).sum(dim=-2)
            u_BHV = beta_BTNH[:, t, n, :, None] * (v[:, t, n] - old_BHV)
            S_BHKV = S_BHKV + k_BHK1 * u_BHV[..., None, :]
        ys.append((q_BTHK[:, t, :, :, None] * S_BHKV).sum(dim=-2))
    return torch.stack(ys, dim=1).to(v_BTNHV.dtype), S_BHKV


def expanded_delta_product(
    q_BTHK: Tensor,
    k_BTNHK: Tensor,
    v_BTNHV: Tensor,
    beta_BTNH: Tensor,
    log_decay_BTH: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The delta rule on N T positions; arguments and results as in `delta_product`."""
    N = k_BTNHK.shape[2]
    k, v, beta = (x.flatten(1, 2) for x in (k_BTNHK, v_BTNHV, beta_BTNH))
    q = F.pad(q_BTHK[:, :, None], (0, 0, 0, 0, N - 1, 0)).flatten(1, 2)
    if log_decay_BTH is None:
        y, state_BHKV = delta_rule(q, k, v, beta, state_BHKV)
    else:
        log_decay = F.pad(log_decay_BTH[:, :, None, :, None], (0, 0, 0, 0, 0, N - 1)).flatten(1, 2)
        y, state_BHKV = gated_delta_rule(q, k, v, beta, log_decay, state_BHKV)
    return y[:, N - 1 :: N], state_BHKV


def delta_product(
    q_BTHK: Tensor,
    k_BTNHK: Tensor,
    v_BTNHV: Tensor,
    beta_BTNH: Tensor,
    log_decay_BTH: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Delta products, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTNHK: the keys of each step; the memory stays bounded if beta * |k|^2 is at most 2.
        v_BTNHV: the values of each step.
        beta_BTNH: the strength of each write, from 0 to 1, or to 2 for negative eigenvalues.
        log_decay_BTH: the logarithms of the decays, from minus infinity to 0, or None for no decay.
        state_BHKV: the memory to start from, or None for zeros.

    Returns:
        `y_BTHV` in the dtype of `v_BTNHV`, and the last memory (B, H, K, V). Computation and memory are float32
        whatever the dtype of the input (float64 if `v_BTNHV` is), under autocast too. Counts as (4 N + 2) K V FLOPs per
        token and head: each step reads under its key and writes, and the query reads once.
    """
    B, T, N, H, V = v_BTNHV.shape
    form = dispatch(T, naive_delta_product, expanded_delta_product, shortest=SHORTEST_EXPANDED)
    with counted_as((4 * N + 2) * B * T * H * q_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTNHK, v_BTNHV, beta_BTNH, log_decay_BTH, state_BHKV)
