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

`chunked_delta_rule` computes all u_t of a chunk at once. Let S be the state before the chunk, and Q, K, V, U the
vectors of the chunk as rows. Each S_{t-1} is S plus the outer products of the chunk's earlier positions, so U solves a
unit lower-triangular system (the UT transform of the WY representation):

    (I + tril(diag(beta) K K^T, -1)) U = diag(beta) (V - K S)
    Y = Q S + tril(Q K^T) U
    next S = S + K^T U

The system does not contain S: it is solved for all chunks together, with diag(beta) as its right-hand side. The loop
over chunks multiplies the solution by V - K S.

Legend: B batch, T time, H heads, K key width, V value width; inside the chunked form N chunks, M = B * H, C positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.kernels import find_kernel
from lmzoo.ops.precision import wide_dtype

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 4  # for shorter sequences the loop needs fewer calls


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
    """The fast form, in chunks of `CHUNK_LENGTH` positions; arguments and results as in `delta_rule`."""
    T, H = v_BTHV.shape[1:3]
    *inputs, S_BHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, beta_BTH, state_BHKV)
    q_NMCK, k_NMCK, v_NMCV, beta_NMC = (_in_chunks(x, min(CHUNK_LENGTH, T)) for x in inputs)
    S_MKV = S_BHKV.flatten(0, 1)
    ys = []
    with torch.autocast(v_BTHV.device.type, enabled=False):  # autocast would compute the products in its own dtype
        # The diagonal of the system is one by definition and is never read.
        system_NMCC = beta_NMC[..., None] * (k_NMCK @ k_NMCK.mT)
        solution_NMCC = torch.linalg.solve_triangular(
            system_NMCC.tril(-1), torch.diag_embed(beta_NMC), upper=False, unitriangular=True
        )
        scores_NMCC = (q_NMCK @ k_NMCK.mT).tril()
        chunks = (x.unbind(0) for x in (q_NMCK, k_NMCK, v_NMCV, solution_NMCC, scores_NMCC))
        for q_MCK, k_MCK, v_MCV, solution_MCC, scores_MCC in zip(*chunks, strict=True):
            u_MCV = solution_MCC @ torch.baddbmm(v_MCV, k_MCK, S_MKV, alpha=-1)
            ys.append(torch.baddbmm(q_MCK @ S_MKV, scores_MCC, u_MCV))
            S_MKV = torch.baddbmm(S_MKV, k_MCK.mT, u_MCV)
    y_BTHV = rearrange(torch.stack(ys), "n (b h) c v -> b (n c) h v", h=H)[:, :T]
    return y_BTHV.to(v_BTHV.dtype), S_MKV.unflatten(0, S_BHKV.shape[:2])


def delta_rule(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, beta_BTH: Tensor, state_BHKV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The delta rule, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTHK: the keys; the memory stays bounded if beta * |k|^2 is at most 2.
        v_BTHV: the values.
        beta_BTH: the strength of each write, from 0 to 1, or to 2 for negative eigenvalues.
        state_BHKV: the memory to start from, or None for zeros.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory (B, H, K, V). Computation and memory are float32 whatever
        the dtype of the input (float64 if `v_BTHV` is), under autocast too; for bfloat16 on a GPU, a kernel may
        multiply in bfloat16 (`lmzoo.ops.kernels`). Counts as 6 K V FLOPs per token and head: to read under the key, to
        write, and to read under the query takes K V multiply-adds each.
    """
    B, T, H, V = v_BTHV.shape
    kernel = find_kernel("delta_rule", q_BTHK, k_BTHK, v_BTHV)
    form = dispatch(T, naive_delta_rule, chunked_delta_rule, shortest=SHORTEST_CHUNKED, kernel=kernel)
    with counted_as(6 * B * T * H * k_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTHK, v_BTHV, beta_BTH, state_BHKV)


def _wide_inputs(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state_BHKV: Tensor | None) -> tuple[Tensor, ...]:
    """Convert all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(v.dtype)
    B, _, H, K = k.shape
    state_BHKV = v.new_zeros(B, H, K, v.shape[-1]) if state_BHKV is None else state_BHKV
    return tuple(x.to(dtype) for x in (q, k, v, beta, state_BHKV))


def _in_chunks(x_BTH: Tensor, C: int) -> Tensor:
    """Rearrange (B, T, H, ...) to (N, B * H, C, ...), with zeros after the end of the last chunk.

    A beta of zero leaves the state as it is.
    """
    missing = -x_BTH.shape[1] % C
    if missing:
        x_BTH = F.pad(x_BTH, (0, 0) * (x_BTH.ndim - 2) + (0, missing))
    return rearrange(x_BTH, "b (n c) h ... -> n (b h) c ...", c=C).contiguous()
