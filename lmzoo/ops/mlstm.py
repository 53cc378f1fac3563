"""The mLSTM's recurrence: a matrix memory with an exponential input gate (Beck et al. 2024, arXiv 2405.04517, eq. 19).

For every batch row and head, with keys, values and a normalizer n,

    C_t = f_t C_{t-1} + exp(i_t) k_t v_t^T     n_t = f_t n_{t-1} + exp(i_t) k_t
    y_t = C_t^T q_t / max(|n_t . q_t|, 1)

exp(i) overflows, so C and n are stored divided by exp(m), with m_t = max(log f_t + m_{t-1}, i_t): all exponents are at
most 0. The value of y does not depend on m, except for a small number `EPS` in the denominator, so gradients treat m as
a constant. n is the last column of the memory, for a value that is always 1. `naive_mlstm` computes this step by step.

`chunked_mlstm` computes a chunk at once: with the logs of the decays summed over exactly the positions s + 1 ... t,

    log D[t, s] = log f_{s+1} + ... + log f_t + i_s,   m_t = max(m + log f_1 + ... + log f_t, max_s log D[t, s])

where m is the scale before the chunk, position t reads the memory before the chunk with the weight exp(m + log f_1 +
... + log f_t - m_t), and what position s <= t wrote with exp(log D[t, s] - m_t).

Legend: B batch, T time, H heads, K key width, V value width, W = V + 1; inside the chunked form N chunks, M = B * H, C
positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype, without_autocast

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 2  # for shorter sequences the loop needs fewer calls
EMPTY = -1e30  # m of an empty memory: finite, so that no difference is undefined
EPS = 1e-6  # added to the denominator, as in the authors' code
LARGEST_EXPONENT = 80.0  # exp(-m) stays finite in float32; y is then below exp(-80)


class MatrixMemory(NamedTuple):
    """The state of the recurrence."""

    Cn: Tensor  # (B, H, K, V + 1), C with n as the last column, divided by exp(m)
    m: Tensor  # (B, H)


def empty_memory(B: int, H: int, K: int, V: int, like: Tensor) -> MatrixMemory:
    """Returns the state before the first token, in float32 or wider."""
    zeros = like.new_zeros(B, H, K, V + 1, dtype=wide_dtype(like.dtype))
    return MatrixMemory(zeros, zeros.new_full((B, H), EMPTY))


def naive_mlstm(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    i_BTH: Tensor,
    log_f_BTH: Tensor,
    state: MatrixMemory | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """The definition, one step after another; arguments and results as in `mlstm`."""
    q, k, v_BTHW, i, log_f, (Cn_BHKW, m_BH) = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, i_BTH, log_f_BTH, state)
    ys = []
    for q_BHK, k_BHK, v_BHW, i_BH, log_f_BH in zip(*(x.unbind(1) for x in (q, k, v_BTHW, i, log_f)), strict=True):
        before_BH = log_f_BH + m_BH
        m_BH = torch.maximum(before_BH, i_BH).detach()
        keep_BH, write_BH = torch.exp(before_BH - m_BH), torch.exp(i_BH - m_BH)
        written_BHKW = k_BHK[..., None] * v_BHW[..., None, :]
        Cn_BHKW = keep_BH[..., None, None] * Cn_BHKW + write_BH[..., None, None] * written_BHKW
        ys.append(_normalized((q_BHK[..., None] * Cn_BHKW).sum(dim=-2), m_BH))
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), MatrixMemory(Cn_BHKW, m_BH)


def chunked_mlstm(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    i_BTH: Tensor,
    log_f_BTH: Tensor,
    state: MatrixMemory | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """The fast form, in chunks of `CHUNK_LENGTH` positions; arguments and results as in `mlstm`."""
    B, T, H = i_BTH.shape
    q, k, v_BTHW, i, log_f, (Cn_BHKW, m_BH) = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, i_BTH, log_f_BTH, state)
    C = min(CHUNK_LENGTH, T)
    q, k, v, log_f, i = (_in_chunks(x, C) for x in (q, k, v_BTHW, log_f[..., None], i[..., None]))
    Cn_MKW, m_M1 = Cn_BHKW.flatten(0, 1), m_BH.flatten()[:, None]
    ys = []
    with without_autocast(v_BTHV):
        position_C = torch.arange(C, device=q.device)
        later_CC = position_C[:, None] > position_C
        decays_NMCC = torch.where(later_CC, log_f, 0.0).cumsum(dim=2)  # over positions s + 1 ... t
        exists_NC = (position_C < T - C * torch.arange(len(q), device=q.device)[:, None])[:, None, None]
        log_D_NMCC = (decays_NMCC + i.mT).masked_fill(later_CC.mT | ~exists_NC, -math.inf)
        log_start_NMC, largest_NMC = log_f.squeeze(-1).cumsum(dim=2), log_D_NMCC.amax(dim=-1)
        chunks = (q, k, v, q @ k.mT, log_D_NMCC, log_start_NMC, largest_NMC)
        for q_MCK, k_MCK, v_MCW, scores_MCC, log_D_MCC, log_start_MC, largest_MC in zip(*chunks, strict=True):
            m_MC = torch.maximum(m_M1 + log_start_MC, largest_MC).detach()
            keep_MC1 = torch.exp(m_M1 + log_start_MC - m_MC)[..., None]
            D_MCC = torch.exp(log_D_MCC - m_MC[..., None])
            ys.append(_normalized(keep_MC1 * (q_MCK @ Cn_MKW) + (scores_MCC * D_MCC) @ v_MCW, m_MC))
            written_MKW = (k_MCK * D_MCC[:, -1, :, None]).mT @ v_MCW
            Cn_MKW, m_M1 = keep_MC1[:, -1:] * Cn_MKW + written_MKW, m_MC[:, -1:]
    y_BTHV = rearrange(torch.stack(ys), "n (b h) c v -> b (n c) h v", h=H)[:, :T]
    return y_BTHV.to(v_BTHV.dtype), MatrixMemory(Cn_MKW.unflatten(0, (B, H)), m_M1.view(B, H))


def mlstm(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    i_BTH: Tensor,
    log_f_BTH: Tensor,
    state: MatrixMemory | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """The mLSTM's recurrence, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are.
        k_BTHK: the keys, used as they are: the caller scales them.
        v_BTHV: the values.
        i_BTH: the logs of the input gates.
        log_f_BTH: the logs of the forget gates, at most 0.
        state: the memory to start from, or None for an empty one.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the last memory. Computation and memory are float32 whatever the dtype of
        the input (float64 if `v_BTHV` is), under autocast too. Counts as 4 K (V + 1) FLOPs per token and head: to write
        and to read takes a multiply-add per entry of the memory each.
    """
    B, T, H, V = v_BTHV.shape
    form = dispatch(T, naive_mlstm, chunked_mlstm, shortest=SHORTEST_CHUNKED)
    with counted_as(4 * B * T * H * k_BTHK.shape[-1] * (V + 1)):
        return form(q_BTHK, k_BTHK, v_BTHV, i_BTH, log_f_BTH, state)


def _normalized(read: Tensor, m: Tensor) -> Tensor:
    """Divides what was read, (..., V + 1), by its last column or by exp(-m): (..., V)."""
    least = torch.exp((-m).clamp(max=LARGEST_EXPONENT))
    return read[..., :-1] / (torch.maximum(read[..., -1].abs(), least) + EPS)[..., None]


def _wide_inputs(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor, state: MatrixMemory | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, MatrixMemory]:
    """Converts all inputs to float32 or wider, and adds the value 1 for the normalizer."""
    dtype = wide_dtype(v.dtype)
    B, _, H, K = k.shape
    Cn, m = empty_memory(B, H, K, v.shape[-1], v) if state is None else state
    q, k, v, i, log_f = (x.to(dtype) for x in (q, k, v, i, log_f))
    return q, k, F.pad(v, (0, 1), value=1.0), i, log_f, MatrixMemory(Cn.to(dtype), m.to(dtype))


def _in_chunks(x_BTHK: Tensor, C: int) -> Tensor:
    """Rearrange (B, T, H, K) to (N, B * H, C, K), with zeros after the end of the last chunk."""
    missing = -x_BTHK.shape[1] % C
    if missing:
        x_BTHK = F.pad(x_BTHK, (0, 0, 0, 0, 0, missing))
    return rearrange(x_BTHK, "b (n c) h k -> n (b h) c k", c=C).contiguous()
