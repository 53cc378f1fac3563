"""Gated linear attention with a trapezoidal rule: each token adds its value, and the value before it once more.

The recurrence of Mamba-3 (Lahoti et al. 2026, arXiv 2603.15569, exponential-trapezoidal discretization). For every
batch row and head, with vectors as rows and a memory S that is a matrix (K, V),

    S_t = a_t (S_{t-1} + b_t k_{t-1}^T v_{t-1}) + g_t k_t^T v_t
    y_t = q_t S_t

A state-space model adds to its memory the integral of its input over the last step. The rule of Euler, as in Mamba-2,
takes the input at the end of the step for all of it (b = 0). The trapezoidal rule takes a mixture of both ends, and the
input at the start of the step decays with the memory. This is also a data-dependent convolution of width two.

How to call it: `y, state = trapezoidal_attention(q, k, v, log_decay, start, end, state)`. `log_decay` is log a_t, at
most zero; `start` and `end` are b_t and g_t; all three are (B, T, H, 1).

`naive_trapezoidal_attention` computes this step by step. `shifted_trapezoidal_attention` uses that the token t is
written with the weight g_t at its own step and with b_{t+1} at the next one. Let U_t be S_t without its last term:

    U_t = a_t U_{t-1} + k_{t-1}^T a_t (g_{t-1} + b_t) v_{t-1}
    y_t = q_t U_t + g_t (q_t . k_t) v_t

The first line is `gated_linear_attention` of keys and values that are shifted by one token, so one call computes it,
and nothing depends on a later token.

Legend: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide_dtype

SHORTEST_CHUNKED = 4  # for shorter sequences the loop needs fewer calls


class TrapezoidalState(NamedTuple):
    """The memory after a token, with the key and the value of that token; float32 or wider."""

    memory: Tensor  # (B, H, K, V)
    k: Tensor  # (B, H, K)
    v: Tensor  # (B, H, V)


def naive_trapezoidal_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH1: Tensor,
    start_BTH1: Tensor,
    end_BTH1: Tensor,
    state: TrapezoidalState | None = None,
) -> tuple[Tensor, TrapezoidalState]:
    """The definition, one step after another; arguments and results as in `trapezoidal_attention`."""
    (q, k, v, log_decay, start, end), (S_BHKV, k_before, v_before) = _wide_inputs(
        q_BTHK, k_BTHK, v_BTHV, log_decay_BTH1, start_BTH1, end_BTH1, state
    )
    ys = []
    steps = (x.unbind(1) for x in (q, k, v, log_decay.exp(), start, end))
    for q_BHK, k_BHK, v_BHV, a_BH1, b_BH1, g_BH1 in zip(*steps, strict=True):
        S_BHKV = a_BH1[..., None] * (S_BHKV + _outer(k_before, b_BH1 * v_before)) + _outer(k_BHK, g_BH1 * v_BHV)
        ys.append((q_BHK[..., None] * S_BHKV).sum(dim=-2))
        k_before, v_before = k_BHK, v_BHV
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), TrapezoidalState(S_BHKV, k_before, v_before)


def shifted_trapezoidal_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH1: Tensor,
    start_BTH1: Tensor,
    end_BTH1: Tensor,
    state: TrapezoidalState | None = None,
) -> tuple[Tensor, TrapezoidalState]:
    """The fast form, in chunks; arguments and results as in `trapezoidal_attention`."""
    (q, k, v, log_decay, start, end), (S_BHKV, k_before, v_before) = _wide_inputs(
        q_BTHK, k_BTHK, v_BTHV, log_decay_BTH1, start_BTH1, end_BTH1, state
    )
    now = end * v
    # The state's memory has its last token's `end` term already.
    both = start + torch.cat([torch.zeros_like(end[:, :1]), end[:, :-1]], dim=1)
    earlier = both * log_decay.exp() * _shifted(v_before, v)
    read_BTHV, U_BHKV = gated_linear_attention(q, _shifted(k_before, k), earlier, log_decay, S_BHKV)
    y_BTHV = read_BTHV + (q * k).sum(dim=-1, keepdim=True) * now
    last = TrapezoidalState(U_BHKV + _outer(k[:, -1], now[:, -1]), k[:, -1].clone(), v[:, -1].clone())
    return y_BTHV.to(v_BTHV.dtype), last


def trapezoidal_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH1: Tensor,
    start_BTH1: Tensor,
    end_BTH1: Tensor,
    state: TrapezoidalState | None = None,
) -> tuple[Tensor, TrapezoidalState]:
    """Gated linear attention with a trapezoidal rule, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are.
        k_BTHK: the keys.
        v_BTHV: the values.
        log_decay_BTH1: the logarithms of the decays, from minus infinity to 0.
        start_BTH1: the weight of the value before each one, which decays with the memory.
        end_BTH1: the weight of each value.
        state: what the tokens before left, or None at the start of a text.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the next state. Computation and state are float32 whatever the dtype of
        the input (float64 if `v_BTHV` is). Counts as 6 K V FLOPs per token and head: K V multiply-adds for each of two
        writes and a read.
    """
    B, T, H, V = v_BTHV.shape
    form = dispatch(T, naive_trapezoidal_attention, shifted_trapezoidal_attention, shortest=SHORTEST_CHUNKED)
    with counted_as(6 * B * T * H * k_BTHK.shape[-1] * V):
        return form(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH1, start_BTH1, end_BTH1, state)


def _outer(k_BHK: Tensor, v_BHV: Tensor) -> Tensor:
    return k_BHK[..., None] * v_BHV[..., None, :]


def _shifted(before_BHK: Tensor, x_BTHK: Tensor) -> Tensor:
    """Returns the value before each one of x."""
    return torch.cat([before_BHK[:, None], x_BTHK[:, :-1]], dim=1)


def _wide_inputs(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH1: Tensor,
    start_BTH1: Tensor,
    end_BTH1: Tensor,
    state: TrapezoidalState | None,
) -> tuple[list[Tensor], TrapezoidalState]:
    """Converts the inputs and the state to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(v_BTHV.dtype)
    if state is None:
        k_BHK, v_BHV = torch.zeros_like(k_BTHK[:, 0]), torch.zeros_like(v_BTHV[:, 0])
        state = TrapezoidalState(_outer(k_BHK, v_BHV), k_BHK, v_BHV)
    inputs = [x.to(dtype) for x in (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH1, start_BTH1, end_BTH1)]
    return inputs, TrapezoidalState(*(x.to(dtype) for x in state))
